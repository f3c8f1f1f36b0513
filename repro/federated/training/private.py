"""DP-SGD as a hospital's local trainer, its noise calibrated to a total ε over the whole run.

Each hospital has its own sample rate (expected batch ÷ its images) and number of steps, hence
its own noise multiplier: all of them spend the same ε. Images, sizes, steps and the expected
batch are what the guarantee takes as public; see the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from repro.accounting import PrivacyEvent, calibrate_noise_multiplier
from repro.federated.training.plain import HospitalData, LocalReport, LocalTrainer, cross_entropy
from repro.privacy.clipping import Clipping
from repro.privacy.dpsgd import DPSGD, DPSGDSettings
from repro.privacy.private_step import StepPlan
from repro.privacy.sampling import PoissonSampler
from repro.randomness import RootSeed
from repro.runs.settings import RecordPrivacy


@dataclass(frozen=True, kw_only=True)
class HospitalPlan(StepPlan):
    """One hospital's DP-SGD, fixed before training from public numbers alone."""

    steps_per_round: int


def plan(settings: RecordPrivacy, images: int, epochs: int | float, rounds: int) -> HospitalPlan:
    """The smallest noise that keeps ``rounds`` rounds of ``epochs`` local epochs within ε.

    A hospital with fewer images than the expected batch takes all of them at every step.
    """
    sampler = PoissonSampler.with_expected_batch(images, min(settings.expected_batch, images))
    steps = max(1, round(epochs * sampler.steps_per_epoch()))
    noise, _ = calibrate_noise_multiplier(
        settings.epsilon, settings.delta, sampler.sample_rate, steps * rounds
    )
    clipping = Clipping(settings.clip_norm, settings.clipping)
    return HospitalPlan(
        sampler=sampler, clipping=clipping, noise_multiplier=noise, steps_per_round=steps
    )


class PrivateTrainer(LocalTrainer):
    """Keeps no state between rounds: the optimizer is fresh, as in FedAvg."""

    mechanism = "dp-sgd"

    def __init__(
        self, settings: RecordPrivacy, weights: dict[int, int], *, epochs: int | float, rounds: int
    ) -> None:
        self.settings, self.rounds = settings, rounds
        # Hospitals of one size share a plan: thousands of them cost a handful of calibrations.
        by_size = {size: plan(settings, size, epochs, rounds) for size in set(weights.values())}
        self.plans = {hospital: by_size[size] for hospital, size in weights.items()}

    def train(
        self, model: nn.Module, data: HospitalData, *, seed: RootSeed, round_number: int
    ) -> LocalReport:
        """No training loss is reported: computed on records, it would itself need noise."""
        mine = self.plans[data.hospital]
        report = DPSGD(self._dpsgd(mine)).train(
            model,
            cross_entropy,
            data.train.inputs(),
            data.train.labels,
            seed=seed,
            party=data.hospital,
            round=round_number,
            steps=mine.steps_per_round,
            more_rounds=round_number < self.rounds,
        )
        noted = report.diagnostics
        return LocalReport(
            loss=None,
            diagnostics={
                "gradients": noted.drawn,
                "gradients_clipped": noted.clipped,
                "gradients_non_finite": noted.non_finite,
            },
        )

    def spends(self, hospital: int) -> list[tuple[PrivacyEvent, int]]:
        mine = self.plans[hospital]
        return [(mine.event, mine.steps_per_round)]

    def _dpsgd(self, mine: HospitalPlan) -> DPSGDSettings:
        settings = self.settings
        return DPSGDSettings(
            clip_norm=settings.clip_norm,
            noise_multiplier=mine.noise_multiplier,
            expected_batch=round(mine.sampler.expected_batch),
            learning_rate=settings.learning_rate,
            optimizer=settings.optimizer,
            momentum=settings.momentum if settings.optimizer == "sgd" else 0.0,
            clipping=settings.clipping,
            engine=settings.engine,
        )
