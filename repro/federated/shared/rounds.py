"""Rounds whose exchanges are private sums over all hospitals: DP-SGD on shared noise, second order.

What they have in common: who is lost, the sums and what they took, what they cost whom. What a
hospital adds up, and what is made of the total, is a subclass's.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.federated.protocol import (
    Clock,
    Hospitals,
    Part,
    Place,
    Progress,
    RoundProtocol,
    RoundReport,
    silent,
)
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.spending import shared_views, spent_on
from repro.federated.shared.sum import Release, Summation
from repro.randomness import RootSeed
from repro.runs.settings import SecAggParameters, SharedNoise
from repro.secagg import RoundFailed, model_digest
from repro.shapes import Float


class SharedRounds(RoundProtocol):
    """weights: hospital -> its training records, public. secagg: None for one hospital alone, which
    adds all of the noise."""

    def __init__(
        self,
        shared: SharedNoise,
        secagg: SecAggParameters | None,
        weights: Mapping[int, int],
        seed: RootSeed,
    ) -> None:
        self.shared, self.secagg, self.seed = shared, secagg, seed
        self.weights = dict(sorted(weights.items()))
        self.views = shared_views(shared.colluders, len(weights))

    def planned(self, **more: Any) -> NoisePlan:
        return planned(self.shared, self.secagg, len(self.weights), **more)

    @abstractmethod
    def sum_in(self, round: int) -> Summation:
        """What the round's totals are taken from."""

    def run_round(
        self, vector: Tensor, hospitals: Hospitals, round: int, progress: Progress = silent
    ) -> tuple[Tensor, RoundReport]:
        report, noise_seconds = RoundReport(), 0.0
        clock = Clock(report.seconds)
        releases, failed = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
        facts: dict[str, Any] = {}
        for step in range(self.exchanges(round)):
            at = Place(round, step)
            shares = {}
            for one in sorted(set(hospitals) - self.lost(at)):
                made = self.part(vector, hospitals[one], at)
                shares[one] = made.vector.numpy()
                report.diagnostics.update(made.diagnostics)
                noise_seconds += made.noise_seconds
            clock.lap("training")
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
                vector = self.apply(vector, torch.from_numpy(release.total), release.survivors, at)
            clock.lap("aggregation")
        report.seconds["noise"] = noise_seconds
        report.seconds["training"] -= noise_seconds
        report.spent, report.seen = spent_on(self.sum_in(round).plan, releases, failed)
        report.facts = {"secagg": facts | self._facts(round, releases)}
        return vector.float(), report

    def share(
        self,
        hospital: int,
        values: Float[np.ndarray, " size"],
        diagnostics: Mapping[str, int],
        at: Place,
    ) -> Part:
        """A hospital's sum of clipped contributions as its part: on the grid, with its noise."""
        started = time.perf_counter()
        vector = self.sum_in(at.round).share(hospital, values, round=at.round, step=at.step)
        return Part(torch.from_numpy(vector), diagnostics, time.perf_counter() - started)

    def lost(self, at: Place) -> set[int]:
        """The hospitals that an exchange loses, drawn by the run's seed (``drop_rate``)."""
        count = int(self.secagg.drop_rate * len(self.weights)) if self.secagg else 0
        if not count:
            return set()
        stream = self.seed.numpy_generator("drop-outs", *at)
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


def planned(
    shared: SharedNoise, secagg: SecAggParameters | None, hospitals: int, **more: Any
) -> NoisePlan:
    """A plan for sums of this federation. more: what is the sum's own."""
    return NoisePlan(
        hospitals=hospitals,
        colluders=shared.colluders,
        drop_outs=shared.drop_outs,
        field_bits=secagg.field_bits if secagg else SecAggParameters.field_bits,
        **more,
    )


def _note_traffic(facts: dict[str, Any], release: Release) -> None:
    """Add what the protocol took to the round's facts, where it ran."""
    if not release.protocol:
        return
    facts["protocol_steps"] = facts.get("protocol_steps", 0) + 1
    for name, counted in (("up_bytes", release.up_bytes), ("down_bytes", release.down_bytes)):
        known = facts.setdefault(name, dict.fromkeys(counted, 0))
        for phase, count in counted.items():
            known[phase] += count
