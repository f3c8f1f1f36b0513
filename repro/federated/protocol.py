"""One round, whatever the arm: hospitals' parts, their sum, the next global model.

A round is one exchange or several. In each, every hospital makes its part of the global model and
its own records (``part``: all that a hospital does), the parts are added up, and the server makes
the next global model of the sum (``apply``: all that the server does). Neither calls the other and
nothing passes between them but two vectors, so they run as well in processes apart;
``run_round`` composes them in this one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repro.accounting import PrivacyEvent
from repro.accounting.ledger import View
from repro.federated.training.plain import HospitalData

Progress = Callable[[int, int | None, float | None], None]  # round, hospital, accuracy
Hospitals = Mapping[int, HospitalData]


def silent(round: int, hospital: int | None, accuracy: float | None) -> None:
    """Progress that nobody is told of."""


class Place(NamedTuple):
    """An exchange of a run; every draw of records or noise is of one."""

    round: int  # 1 …
    step: int = 0  # … of the round's exchanges


@dataclass(frozen=True)
class Part:
    """One hospital's part of an exchange.

    vector: all that leaves the hospital, and only into the (secure) sum: (n,) float32, an update;
        or int64 on the grid of a ``PrivateSum``, the hospital's share of the noise in it.
    diagnostics: exact counts over records, for this machine only.
    noise_seconds: what making its share of the noise took.
    """

    vector: Tensor
    diagnostics: Mapping[str, int]
    noise_seconds: float = 0.0


@dataclass
class RoundReport:
    """What a round did, beside the next global model.

    facts: for the record, public. exact: for the record too, but computed on records without
    noise, so that no ε covers it: a private run keeps none of it, nor of ``diagnostics``.
    spent: (hospital, event, how often), of those whose parts are in a sum. seen: hospital -> key of
    a ledger's view -> the event as that view saw it, where this is another.
    seconds: by part of the round.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    exact: dict[str, Any] = field(default_factory=dict)
    spent: list[tuple[int, PrivacyEvent, int]] = field(default_factory=list)
    seen: dict[int, dict[str, PrivacyEvent]] = field(default_factory=dict)
    diagnostics: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)


class RoundProtocol(ABC):
    """What an arm does in a round. The global model is a vector (``repro.federated.vector``).

    mechanism: what a ledger calls it; None: nothing private. views: of a ledger; None: the usual.
    """

    mechanism: str | None
    views: list[View] | None = None

    @abstractmethod
    def exchanges(self, round: int) -> int:
        """How often in this round hospitals send a part and get the next model; public."""

    @abstractmethod
    def part(self, vector: Tensor, data: HospitalData, at: Place) -> Part:
        """One hospital's part at the global model ``vector``, which stays as it is.

        In a private arm this spends what ``run_round`` reports as ``spent``: whoever calls it alone
        writes that to a ledger before the part leaves the hospital.
        """

    @abstractmethod
    def apply(self, vector: Tensor, total: Tensor, survivors: Sequence[int], at: Place) -> Tensor:
        """The next global model, of the decoded sum of the survivors' parts (for updates: their
        weighted mean)."""

    @abstractmethod
    def run_round(
        self, vector: Tensor, hospitals: Hospitals, round: int, progress: Progress = silent
    ) -> tuple[Tensor, RoundReport]:
        """All exchanges of a round, in this process or on its ranks.

        vector: (P,) float32. hospitals: all, or those of this rank. Returns the next global model,
        (P,) float32: the same one where too many hospitals were lost.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What the next round depends on beside model, seed and data."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Clock:
    """Adds the time since the last lap to a named part."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.last = seconds, time.perf_counter()

    def lap(self, part: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now
