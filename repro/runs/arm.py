"""What an arm is: its parts, and how the report shows it.

An arm carries its own presentation, so the report knows none by name, and a new one is in every
table and figure that it belongs to once it is among the arms.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from repro.runs.search_settings import SearchSettings
from repro.runs.settings import PartitionSettings, RecordPrivacy, SecondOrder, UpdatePrivacy

# The paper's configurations, in its own words and its table's order.
CONFIGURATIONS = ("DP− / SecAgg−", "DP− / SecAgg+", "DP+ / SecAgg−", "DP+ / SecAgg+")
PLAIN, PLAIN_SECURE, PRIVATE_CLEAR, PRIVATE = CONFIGURATIONS

EPSILONS = (1.0, 3.0, 6.0, 8.0)
STATED = UpdatePrivacy.epsilon  # the ε that the paper names: tables compare honest arms there
# δ must lie well below 1 / (the images of whoever trains): the paper's does for a hospital's, not
# for all hospitals' together.
POOLED_DELTA = 1e-5

SHARED = "honest for a record, noise shared"  # what several arms and places call the same

# Where only some arms are shown; Tables 1b, 3 and 6 have every arm that they apply to.
Place = Literal[
    "front",  # a row of README's table: method, ε, accuracy and what privacy cost, in few words
    "answer",  # a row of the answer's table and of its chart, Figure 10
    "bounds",  # a row of Table 1 that the paper has not
    "curves",  # a curve against round: Figures 3 and 4
    "frontier",  # a point of Figure 5; those of one name and family are joined to a curve
    "confusion",  # Figure 6
    "recall",  # Figure 7
    "overnight",  # a row of Table 7
    "paper",  # a curve in the paper's own setting: Figure 11
    "sentence",  # what a sentence says was trained, in the paper's own setting
]


@dataclass(frozen=True)
class Family:
    """Arms of one model and one way to train it. Only they are compared with each other."""

    heading: str  # above its rows
    sentence: str  # the same within a sentence
    chart: str | None = None  # of its panels of Figure 5; None: the heading


@dataclass(frozen=True)
class Presentation:
    """What an arm is called, and where; everything else of the report follows from its parts."""

    family: Family
    names: Mapping[Place, str] = field(default_factory=dict, hash=False)  # not shown elsewhere
    panel: str | None = None  # of its panels of Figures 3 and 4; None: as for Figure 5
    twin: str | None = None  # the arm that trains the same without privacy; None: there is none
    configuration: str | None = None  # which of the paper's it is a reading of; None: of none


@dataclass(frozen=True)
class Arm:
    """One composition, and what it stands for."""

    name: str
    description: str
    reading: str  # the column of Table 1 it fills
    presentation: Presentation
    scope: str = "federated"
    trainer: str = "adam"
    mechanism: str = "identity"
    aggregator: str = "plain"
    noise: str = "none"  # of the update mechanism: see settings.UpdatePrivacy.noise
    epsilon: float | None = None  # record-level total ε of DP-SGD, at `delta`
    delta: float = RecordPrivacy.delta
    model: str = "dpresnet"  # a name in repro.models.registry
    package: str | None = None  # an optional package without which it cannot run
    second_order: SecondOrder | None = None  # of the trainers "shared-newton" and "newton"
    search: SearchSettings | None = None  # of "searched-newton"
    held_out: float = PartitionSettings.validation_fraction  # of each hospital's images
    tuned: bool = True  # were its settings chosen on private images? No ε covers that

    @property
    def missing(self) -> str | None:
        """Why the arm cannot run on this machine; None where it can."""
        if self.package is None or importlib.util.find_spec(self.package) is not None:
            return None
        return f"{self.name} needs {self.package}: pip install -e '.[public]' where this was cloned"

    @property
    def family(self) -> Family:
        return self.presentation.family

    @property
    def chart(self) -> str:
        """The heading of its panels of Figure 5."""
        return self.family.chart or self.family.heading

    @property
    def panel(self) -> str:
        """The heading of its panels of Figures 3 and 4."""
        return self.presentation.panel or self.chart

    @property
    def private(self) -> bool:
        """Does the arm add noise anywhere? (Clipping alone is not private.)"""
        return self.epsilon is not None or self.noise != "none"


def promised(epsilon: float, unit: str) -> str:
    """``ε = 6 for a record``."""
    return f"ε = {epsilon:g} for a {unit}"
