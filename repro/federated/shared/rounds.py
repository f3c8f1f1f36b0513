"""Rounds whose exchanges are private sums over all hospitals: DP-SGD on shared noise, second order.

What they have in common: who is lost, the sums and what they took, what they cost whom. What a
hospital adds up, and what is made of the total, is a subclass's.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.accounting.ledger import View
from repro.federated.protocol import Part, Progress, RoundReport
from repro.federated.shared.spending import shared_views, spent_on
from repro.federated.shared.sum import Release, Summation
from repro.federated.training.plain import HospitalData
from repro.random import RootSeed
from repro.runs.settings import SecAggParameters, SharedNoise
from repro.secagg import RoundFailed, model_digest
from repro.typing import Float

PARTS = ("training", "noise", "aggregation")  # what a round's seconds are counted for


@dataclass(frozen=True)
class Share(Part):
    """noise_seconds: of making and adding the hospital's share of the noise."""

    noise_seconds: float


class SharedRounds(ABC):
    """A ``RoundProtocol`` on private sums. weights: hospital -> its training records, public."""

    mechanism: str | None

    def __init__(
        self,
        shared: SharedNoise,
        secagg: SecAggParameters,
        weights: Mapping[int, int],
        seed: RootSeed,
    ) -> None:
        self.shared, self.secagg, self.seed = shared, secagg, seed
        self.weights = dict(sorted(weights.items()))

    @property
    def views(self) -> list[View] | None:
        return shared_views(self.shared.colluders)

    @abstractmethod
    def exchanges(self, round: int) -> int: ...

    @abstractmethod
    def sum_in(self, round: int) -> Summation:
        """What the round's totals are taken from."""

    @abstractmethod
    def part(self, vector: Tensor, data: HospitalData, *, round: int, step: int = 0) -> Share: ...

    @abstractmethod
    def apply(
        self,
        vector: Tensor,
        total: Tensor,
        survivors: Sequence[int],
        *,
        round: int,
        step: int = 0,
    ) -> Tensor: ...

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def run_round(
        self,
        vector: Tensor,
        hospitals: Mapping[int, HospitalData],
        round: int,
        progress: Progress = lambda *_: None,
    ) -> tuple[Tensor, RoundReport]:
        report = RoundReport(seconds=dict.fromkeys(PARTS, 0.0))
        releases, failed = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
        facts: dict[str, Any] = {}
        for step in range(self.exchanges(round)):
            shares = self._parts(vector, hospitals, round, step, report)
            started = time.perf_counter()
            try:
                release = self.sum_in(round).add_up(
                    shares,
                    round=round,
                    step=step,
                    protocol=step % self.shared.protocol_every == 0,
                    model=model_digest(vector.cpu().numpy()),
                )
            except RoundFailed as failure:  # nothing was unmasked; no step
                facts["failed"] = str(failure)
                facts["failed_steps"] = facts.get("failed_steps", 0) + 1
                failed[tuple(sorted(shares))] += 1
            else:
                releases[release.survivors] += 1
                _note_traffic(facts, release)
                total = torch.from_numpy(release.total)
                vector = self.apply(vector, total, release.survivors, round=round, step=step)
            report.seconds["aggregation"] += time.perf_counter() - started
        plan = self.sum_in(round).plan
        report.spent, report.seen = spent_on(plan, releases, failed)
        report.facts = {"secagg": facts | self._facts(round, releases)}
        return vector.float(), report

    def _parts(
        self,
        vector: Tensor,
        hospitals: Mapping[int, HospitalData],
        round: int,
        step: int,
        report: RoundReport,
    ) -> dict[int, np.ndarray]:
        """What every hospital that is not lost hands to the secure sum."""
        started, noise, lost = time.perf_counter(), 0.0, self.lost(round, step)
        shares = {}
        for one in sorted(set(hospitals) - lost):
            made = self.part(vector, hospitals[one], round=round, step=step)
            shares[one] = made.vector.numpy()
            noise += made.noise_seconds
            report.diagnostics.update(made.diagnostics)
        report.seconds["training"] += time.perf_counter() - started - noise
        report.seconds["noise"] += noise
        return shares

    def share(
        self,
        hospital: int,
        values: Float[np.ndarray, " size"],
        diagnostics: Counter[str],
        *,
        round: int,
        step: int,
    ) -> Share:
        """A hospital's sum of clipped contributions as its part: on the grid, with its noise."""
        started = time.perf_counter()
        vector = self.sum_in(round).share(hospital, values, round=round, step=step)
        return Share(torch.from_numpy(vector), diagnostics, time.perf_counter() - started)

    def lost(self, round: int, step: int) -> set[int]:
        """The hospitals that an exchange loses, drawn by the run's seed (``drop_rate``)."""
        count = int(self.secagg.drop_rate * len(self.weights))
        if not count:
            return set()
        stream = self.seed.numpy_generator("drop-outs", round, step)
        return {int(h) for h in stream.choice(list(self.weights), count, replace=False)}

    def records(self, hospitals: Iterable[int]) -> int:
        """How many these have together; public."""
        return sum(self.weights[one] for one in hospitals)

    def _facts(self, round: int, releases: Iterable[tuple[int, ...]]) -> dict[str, Any]:
        """How many were in every sum of the round."""
        least = min((len(survivors) for survivors in releases), default=0)
        return {
            "steps": self.exchanges(round),
            "survivors": least,
            "dropped_at_most": len(self.weights) - least,
        }


def _note_traffic(facts: dict[str, Any], release: Release) -> None:
    """Add what the protocol took to the round's facts, where it ran."""
    if not release.protocol:
        return
    facts["protocol_steps"] = facts.get("protocol_steps", 0) + 1
    for name, counted in (("up_bytes", release.up_bytes), ("down_bytes", release.down_bytes)):
        known = facts.setdefault(name, dict.fromkeys(counted, 0))
        for phase, count in counted.items():
            known[phase] += count
