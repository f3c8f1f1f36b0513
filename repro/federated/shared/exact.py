"""Second-order training without privacy: the same steps from exact sums, to see what noise costs.

Nothing here is private and nothing claims an ε: totals are the hospitals' sums as they are, without
noise, grid or secure aggregation. ``repro.federated.assembly`` takes this trainer only for settings
without any privacy (``RunSettings.twin_of``), which cannot be set beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from repro.accounting import NonPrivateEvent, PrivacyEvent
from repro.checks import Number
from repro.errors import InputError
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.report import SharedReport
from repro.federated.shared.second_order import SecondOrderTrainer
from repro.federated.shared.sum import Release
from repro.federated.training.plain import HospitalData
from repro.random import RootSeed
from repro.runs.settings import RecordPrivacy, SecAggParameters, SecondOrder, SharedNoise
from repro.secagg.context import DIGEST_BYTES
from repro.typing import Float


@dataclass(frozen=True)
class ExactRelease(Release):
    """A total with no noise in it: whatever the plan says, it protects nobody."""

    def event(self, sample_rate: Number, *, colluders: int | None = None) -> PrivacyEvent:
        return NonPrivateEvent()


class ExactSum:
    """``PrivateSum.release``'s interface over the sums themselves.

    plan: of the private sum that it stands for; the total has its dimension, and whoever sets a
    threshold by its noise finds the same one.
    """

    def __init__(self, plan: NoisePlan) -> None:
        self.plan = plan

    def release(
        self,
        sums: Mapping[int, Float[np.ndarray, " size"]],
        *,
        round: int,
        step: int = 0,
        protocol: bool = True,
        model: bytes = bytes(DIGEST_BYTES),
    ) -> ExactRelease:
        """Σ over hospitals, (P,) float64, in ascending order of their ids; the rest is ignored."""
        total = np.zeros(self.plan.dimension)
        for hospital in sorted(sums):
            if sums[hospital].shape != total.shape:
                raise InputError("sums", sums[hospital].shape, f"vectors of shape {total.shape}")
            total += sums[hospital]
        return ExactRelease(total, tuple(sorted(sums)), self.plan, protocol=False)


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
        *,
        features: int,
        classes: int,
        rounds: int,
        seed: RootSeed,
    ) -> None:
        # Any graph will do, as no protocol runs: the plan takes the field alone from it.
        others = max(1, len(weights) - 1)
        unused = SecAggParameters(neighbours=others, threshold=others)
        super().__init__(
            like,
            second,
            shared,
            unused,
            weights,
            features=features,
            classes=classes,
            rounds=rounds,
            seed=seed,
        )
        self._sums = {number: ExactSum(one.plan) for number, one in self._sums.items()}
        self._steps.sum = ExactSum(self._steps.plan)

    def train_round(
        self, model: nn.Module, hospitals: Mapping[int, HospitalData], round_number: int
    ) -> SharedReport:
        """As the private trainer's; the report has counts and seconds, and nothing of a plan or a
        protocol, as there was neither."""
        report = super().train_round(model, hospitals, round_number)
        return SharedReport(diagnostics=report.diagnostics, seconds=report.seconds)
