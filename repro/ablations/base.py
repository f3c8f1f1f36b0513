"""What an ablation is: a question, the runs that answer it, and what is shown of them.

Words stand in ``catalogue.toml``; what varies stands in ``catalogue``, or in a module of its own
where the ablation concludes something too. Whatever is common to all is in ``running``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from repro.runs.arms import get_arm
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES, Profile
from repro.runs.record import RunRecord
from repro.runs.settings import RunSettings

if TYPE_CHECKING:
    from repro.data import Dataset

Variant = tuple[str, RunSettings]  # what it is called on the axis, and its run of the first seed
Variants = Callable[[Profile, int], list[Variant]]  # (profile, hospitals)


@dataclass(frozen=True)
class Cell:
    """One variant, finished: a row of the table and a point of the figure."""

    label: str
    settings: RunSettings  # of the first seed
    records: Sequence[RunRecord]  # one a seed


def by_arm(settings: RunSettings) -> str:
    return settings.arm


@dataclass(frozen=True)
class Ablation:
    """One ablation. ``name`` is that of its command and files."""

    name: str
    question: str  # one sentence
    axis: str  # what the variants are values of
    variants: Variants
    expected: str  # before the runs were made; as `repro ablate --list` and ABLATIONS.md show it
    cost: str = ""  # and hardware; "": as ``about`` says of most
    columns: tuple[str, ...] = ()  # further columns of the table: names in ``measures.MEASURES``
    ordered: bool = True  # are the variants values on a scale, which a line may join?
    series: Callable[[RunSettings], str] = by_arm  # runs of one series share a colour and a line
    judged_on: str = "test"  # what the accuracies are measured on: see RunSettings.evaluate_on
    seeds: tuple[int, ...] | None = None  # None: the profile's
    conclude: Callable[[Sequence[Cell], Dataset], Conclusion] | None = None

    def about(self) -> dict[str, str]:
        """``Command``, ``Cost and hardware`` and ``Expected``."""
        variants = len(self.variants(PROFILES["quick"], 10))
        minutes = "minutes on 2 cores in ``quick``, a CUDA device for ``paper``."
        return {
            "Command": f"``repro ablate {self.name}``.",
            "Cost and hardware": self.cost or f"{variants} runs a seed; {minutes}",
            "Expected": self.expected,
        }

    def runs(
        self, profile: Profile, hospitals: int, seeds: Sequence[int]
    ) -> list[tuple[str, list[RunSettings]]]:
        """Every variant with its run of each seed."""
        return [
            (label, [replace(settings, seed=seed) for seed in seeds])
            for label, settings in self.variants(profile, hospitals)
        ]


@dataclass(frozen=True)
class Conclusion:
    """What an ablation says beyond its rows."""

    notes: tuple[str, ...]
    data: dict[str, Any]


def base(arm: str, profile: Profile, hospitals: int) -> RunSettings:
    """The matrix' own run of ``arm``, of which a variant changes one thing.

    A variant that changes nothing is the very run of the matrix, and is not repeated.
    """
    return compose(get_arm(arm), profile, hospitals=hospitals, seed=0)


def change(settings: RunSettings, part: str, **fields: Any) -> RunSettings:
    """``settings`` with ``fields`` of its ``part`` (e.g. "local") replaced."""
    return replace(settings, **{part: replace(getattr(settings, part), **fields)})
