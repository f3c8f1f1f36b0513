"""Federated averaging: every hospital trains on its own, the weighted mean of updates is added.

McMahan et al. 2017 (arXiv 1602.05629), Algorithm 1, every hospital in every round. An update is
local minus global model; a mechanism may clip and noise it, an aggregator makes the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from repro.accounting import PrivacyEvent
from repro.accounting.checks import HOSPITAL
from repro.federated.aggregation import Aggregator
from repro.federated.parallel.ranks import Ranks
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
from repro.federated.training.plain import HospitalData, LocalTrainer
from repro.federated.vector import load_vector, to_vector
from repro.privacy.mechanisms import UpdateMechanism
from repro.randomness import RootSeed


@dataclass(frozen=True, kw_only=True)
class Update(Part):
    """loss: mean training loss, nats; None: not computed. norm: L2, of the raw update. Exact."""

    loss: float | None
    norm: float


class Averaging(RoundProtocol):
    """One exchange a round.

    model: scratch space, on the device to train on. weights: hospital -> its training images, of
    all hospitals on any rank; public.
    """

    def __init__(
        self,
        model: nn.Module,
        trainer: LocalTrainer,
        update_mechanism: UpdateMechanism,
        aggregator: Aggregator,
        weights: dict[int, int],
        *,
        seed: RootSeed,
        ranks: Ranks,
    ) -> None:
        self.model, self.trainer, self.aggregator = model, trainer, aggregator
        self.update_mechanism = update_mechanism
        self.weights, self.seed, self.ranks = weights, seed, ranks
        self.mechanism = trainer.mechanism or update_mechanism.name

    def spends(self, hospital: int) -> list[tuple[PrivacyEvent, int]]:
        """What a round costs a hospital whose update is in the mean: (event, how often)."""
        event = self.update_mechanism.event(HOSPITAL)
        return self.trainer.spends(hospital) + ([] if event is None else [(event, 1)])

    def exchanges(self, round: int) -> int:
        return 1

    def part(self, vector: Tensor, data: HospitalData, at: Place) -> Update:
        load_vector(self.model, vector)
        report = self.trainer.train(self.model, data, seed=self.seed, round_number=at.round)
        update = to_vector(self.model).sub_(vector)
        update, sent = self.update_mechanism(
            update, seed=self.seed, party=data.hospital, round=at.round
        )
        noted = Counter(report.diagnostics)
        noted.update(updates=1, updates_clipped=sent.clipped, updates_non_finite=sent.non_finite)
        return Update(update, noted, loss=report.loss, norm=sent.norm)

    def apply(self, vector: Tensor, total: Tensor, survivors: Sequence[int], at: Place) -> Tensor:
        return vector + total

    def run_round(
        self, vector: Tensor, hospitals: Hospitals, round: int, progress: Progress = silent
    ) -> tuple[Tensor, RoundReport]:
        report = RoundReport()
        clock = Clock(report.seconds)
        self.aggregator.start(round, self.weights, vector)
        clock.lap("aggregation")
        losses: dict[int, float | None] = {}
        longest = 0.0
        for hospital in sorted(hospitals):
            progress(round, hospital, None)
            made = self.part(vector, hospitals[hospital], Place(round))
            clock.lap("training")
            self.aggregator.add(hospital, made.vector)
            clock.lap("aggregation")
            losses[hospital], longest = made.loss, max(longest, made.norm)
            report.diagnostics.update(made.diagnostics)
        combined = self.aggregator.finish()
        following = self.apply(vector, combined.mean, combined.survivors, Place(round))
        clock.lap("aggregation")
        report.facts = combined.facts
        # A hospital that was lost revealed nothing: it is charged only if its update arrived.
        report.spent = [
            (one, event, count) for one in combined.survivors for event, count in self.spends(one)
        ]
        everywhere = self.ranks.gather((losses, longest))
        report.exact = {
            "train_loss": self._mean({h: x for part, _ in everywhere for h, x in part.items()}),
            "longest_update": max(longest for _, longest in everywhere),
        }
        return following, report

    def _mean(self, losses: Mapping[int, float | None]) -> float | None:
        """Over hospitals, by images; None where trainers report no loss (DP-SGD)."""
        known = [(self.weights[h], loss) for h, loss in sorted(losses.items()) if loss is not None]
        if not known:
            return None
        total: float = sum(w * loss for w, loss in known) / sum(w for w, _ in known)
        return total

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.load_state_dict(state)
