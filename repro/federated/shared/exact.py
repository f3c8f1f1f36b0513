"""Second-order training without privacy: the same steps from exact sums, to see what noise costs.

Nothing here is private and nothing claims an ε: totals are the hospitals' sums as they are, without
noise, grid or secure aggregation. ``repro.federated.assembly`` takes this trainer only for settings
without any privacy (``RunSettings.twin_of``), which cannot be set beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from repro.accounting import NonPrivateEvent, PrivacyEvent
from repro.errors import InputError
from repro.federated.protocol import Hospitals, Progress, RoundReport, silent
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.second_order import SecondOrderTrainer
from repro.federated.shared.sum import Release
from repro.randomness import RootSeed
from repro.runs.settings import RecordPrivacy, SecondOrder, SharedNoise
from repro.secagg.context import DIGEST_BYTES
from repro.shapes import Float, Shaped


@dataclass(frozen=True)
class ExactRelease(Release):
    """A total with no noise in it: whatever the plan says, it protects nobody."""

    def event(self, *, colluders: int | None = None) -> PrivacyEvent:
        return NonPrivateEvent()


class ExactSum:
    """A ``Summation`` of the sums themselves.

    plan: of the private sum that it stands for; the total has its dimension, and whoever sets a
    threshold by its noise finds the same one.
    """

    def __init__(self, plan: NoisePlan) -> None:
        self.plan = plan

    def share(
        self, hospital: int, values: Float[np.ndarray, " size"], *, round: int, step: int
    ) -> Shaped[np.ndarray, " size"]:
        """(P,) float64, as they are."""
        if values.shape != (self.plan.dimension,):
            raise InputError("sums", values.shape, f"vectors of shape ({self.plan.dimension},)")
        return values.astype(np.float64)

    def add_up(
        self,
        shares: Mapping[int, Shaped[np.ndarray, " size"]],
        *,
        round: int,
        step: int = 0,
        protocol: bool = True,
        model: bytes = bytes(DIGEST_BYTES),
    ) -> ExactRelease:
        """Σ over hospitals, (P,) float64, in ascending order of their ids; the rest is ignored."""
        total = np.zeros(self.plan.dimension)
        for hospital in sorted(shares):
            total += shares[hospital]
        return ExactRelease(total, tuple(sorted(shares)), self.plan, protocol=False)


class ExactSecondOrderTrainer(SecondOrderTrainer):
    """``SecondOrderTrainer`` with every private sum exchanged for an exact one.

    like: the private arm's settings. Clip norm, learning rate and momentum are taken as they are;
    ε and δ only fix the floor τ, which is a multiple of the noise that the private arm would add.
    Everything else as in ``SecondOrderTrainer``.
    """

    def __init__(
        self,
        like: RecordPrivacy,
        second: SecondOrder,
        shared: SharedNoise,
        weights: Mapping[int, int],
        model: nn.Module,
        *,
        rounds: int,
        seed: RootSeed,
    ) -> None:
        super().__init__(like, second, shared, None, weights, model, rounds=rounds, seed=seed)
        self._sums = {number: ExactSum(one.plan) for number, one in self._sums.items()}
        self._steps.sum = ExactSum(self._steps.plan)

    def run_round(
        self, vector: Tensor, hospitals: Hospitals, round: int, progress: Progress = silent
    ) -> tuple[Tensor, RoundReport]:
        """As the private trainer's; the report has counts and seconds, and nothing of a plan, a
        protocol or an event, as there was none."""
        vector, report = super().run_round(vector, hospitals, round, progress)
        return vector, RoundReport(diagnostics=report.diagnostics, seconds=report.seconds)
