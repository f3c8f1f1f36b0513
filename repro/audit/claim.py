"""What an arm states about one hospital, and what its audit holds against it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from repro.accounting.gaussian import gaussian_epsilon
from repro.errors import InputError
from repro.federated.assembly import update_mechanism
from repro.federated.division import shares
from repro.federated.training.private import plan
from repro.privacy.mechanisms import ClipAndNoiseUpdate
from repro.runs.arms import ARMS, Arm
from repro.runs.settings import RunSettings


@dataclass(frozen=True)
class Claim:
    """One hospital's mechanism as stated: add/remove one record (DP-SGD) or one update."""

    unit: str  # "record" | "hospital"
    epsilon: float  # total over all rounds
    delta: float
    clip_norm: float
    noise_multiplier: float  # deviation of the noise on the sum, in clip norms
    sample_rate: float  # 1 for updates
    steps_per_round: int  # 1 for updates
    rounds: int
    hospital: int

    @property
    def steps(self) -> int:
        return self.steps_per_round * self.rounds


def private_arms() -> list[Arm]:
    """The arms that can be audited: those that add noise, each hospital its own.

    Noise shared inside the secure sum has no such audit yet.
    """
    return [arm for arm in ARMS.values() if arm.private and arm.trainer != "shared-dpsgd"]


def claim_of(settings: RunSettings, labels: np.ndarray) -> Claim:
    """What ``settings`` states for the hospital whose records are sampled at the highest rate.

    labels (N,): of the run's training images. All hospitals spend the same ε; a high rate is what
    an attack sees most of.
    """
    sizes = {hospital: len(held) for hospital, held in shares(settings, labels).items()}
    smallest = min(sizes, key=lambda hospital: (sizes[hospital], hospital))
    record = settings.record_privacy
    if settings.shared is not None:
        raise InputError("arm", settings.arm, _auditable())
    if record is not None:
        mine = plan(record, sizes[smallest], settings.local.epochs, settings.rounds)
        return Claim(
            unit="record",
            epsilon=record.epsilon,
            delta=record.delta,
            clip_norm=record.clip_norm,
            noise_multiplier=mine.noise_multiplier,
            sample_rate=float(mine.sampler.sample_rate),
            steps_per_round=mine.steps_per_round,
            rounds=settings.rounds,
            hospital=smallest,
        )
    mechanism = update_mechanism(settings.update_privacy, settings.rounds)
    if not isinstance(mechanism, ClipAndNoiseUpdate) or settings.update_privacy is None:
        raise InputError("arm", settings.arm, _auditable())
    std, clip_norm = float(mechanism.noise_std), float(mechanism.clip_norm)
    delta = settings.update_privacy.delta
    return Claim(
        unit="hospital",
        epsilon=gaussian_epsilon(std, clip_norm, settings.rounds, delta),
        delta=delta,
        clip_norm=clip_norm,
        noise_multiplier=std / clip_norm,
        sample_rate=1.0,
        steps_per_round=1,
        rounds=settings.rounds,
        hospital=smallest,
    )


def _auditable() -> str:
    names = ", ".join(arm.name for arm in private_arms())
    return f"one in which each hospital adds noise of its own: {names}"


def full_batch_mu(claim: Claim, steps: int) -> float:
    """μ = √steps / σ of ``steps`` steps that draw every record: exactly Gaussian DP.

    Dong, Roth, Su 2022 (arXiv 1905.02383), theorem 2.7 and corollary 3.3.
    """
    return math.sqrt(steps) / claim.noise_multiplier
