"""What an arm states about one hospital, and what its audit holds against it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from repro.accounting.gaussian import gaussian_epsilon, gaussian_sigma
from repro.errors import InputError
from repro.federated.assembly import update_mechanism
from repro.federated.division import shares
from repro.federated.shared.second_order import STATISTICS
from repro.federated.shared.trainer import planned_multiplier
from repro.federated.training.private import plan
from repro.privacy.mechanisms import ClipAndNoiseUpdate
from repro.runs.arm import Arm
from repro.runs.arms import ARMS
from repro.runs.settings import (
    RecordPrivacy,
    RunSettings,
    SecAggParameters,
    SecondOrder,
    SharedNoise,
)


@dataclass(frozen=True)
class Sharing:
    """What an arm whose noise is shared inside the secure sum fixes beforehand, all of it public.

    weights: hospital -> its number of training records. epochs: of a round of steps. statistics:
    noise multipliers of the releases before the first step (second-order arms), else none.
    """

    weights: dict[int, int]
    record: RecordPrivacy
    noise: SharedNoise
    secagg: SecAggParameters
    epochs: int | float
    second: SecondOrder | None = None
    statistics: tuple[float, ...] = ()


@dataclass(frozen=True)
class AuditedClaim:
    """What is stated for one record (DP-SGD: added or removed) or for one hospital's update.

    With ``sharing`` it is stated against the planned coalition: the server with ``colluders``
    hospitals that subtract their shares of the noise, in sums that lost ``drop_outs`` others. The
    noise multiplier is what is then left.
    """

    unit: str  # "record" | "hospital"
    epsilon: float  # total over all rounds
    delta: float
    clip_norm: float
    noise_multiplier: float  # deviation of the noise on the sum, in clip norms
    sample_rate: float  # 1 for updates
    steps_per_round: int  # 1 for updates
    rounds: int  # of steps
    hospital: int
    sharing: Sharing | None = None  # None: every hospital's noise is enough for it alone

    @property
    def steps(self) -> int:
        return self.steps_per_round * self.rounds

    @property
    def second_order(self) -> bool:
        """Are statistics released before the steps?"""
        return self.sharing is not None and self.sharing.second is not None


def private_arms() -> list[Arm]:
    """The arms that can be audited: all that add noise, but for searches: no attack here sees the
    best of several trials alone."""
    return [arm for arm in ARMS.values() if arm.private and arm.search is None]


def claim_of(settings: RunSettings, labels: np.ndarray) -> AuditedClaim:
    """What ``settings`` states for the hospital whose records are sampled at the highest rate.

    labels (N,): of the run's training images. All hospitals spend the same ε; a high rate is what
    an attack sees most of.
    """
    sizes = {hospital: len(held) for hospital, held in shares(settings, labels).items()}
    smallest = min(sizes, key=lambda hospital: (sizes[hospital], hospital))
    record = settings.record_privacy
    if settings.search is not None:
        raise InputError("arm", settings.arm, _auditable())
    if record is not None and settings.shared is not None:
        return _shared_claim(settings, record, sizes, smallest)
    if record is not None:
        mine = plan(record, sizes[smallest], settings.local.epochs, settings.rounds)
        return AuditedClaim(
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
    return AuditedClaim(
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


def _shared_claim(
    settings: RunSettings, record: RecordPrivacy, sizes: dict[int, int], hospital: int
) -> AuditedClaim:
    """Against the planned coalition, all steps and statistics together.

    Derived from the settings once more and not read off the trainers, whose plan is what is
    audited: one that splits the budget or counts its steps wrongly contradicts what is claimed.
    """
    assert settings.shared is not None
    assert settings.secagg is not None
    sharing = Sharing(
        weights=sizes,
        record=record,
        noise=settings.shared,
        secagg=settings.secagg,
        epochs=settings.local.epochs,
        second=settings.second_order,
    )
    rate, steps, rounds = 1.0, 1, settings.rounds - STATISTICS
    if settings.second_order is None:
        rate = min(1.0, record.expected_batch / sum(sizes.values()))
        steps, rounds = max(1, round(settings.local.epochs / rate)), settings.rounds
        multiplier = planned_multiplier(record, rate, steps * rounds)
    else:
        # Shares of μ², of a target that a single release of multiplier 1/μ would meet exactly.
        mu = 1 / gaussian_sigma(record.epsilon, 1.0, 1, record.delta)
        second = settings.second_order
        shares_ = (second.mean_share, second.moments_share)
        sharing = replace(
            sharing, statistics=tuple(1 / (mu * math.sqrt(share)) for share in shares_)
        )
        multiplier = math.sqrt(rounds / (1 - sum(shares_))) / mu
    return AuditedClaim(
        unit="record",
        epsilon=record.epsilon,
        delta=record.delta,
        clip_norm=record.clip_norm,
        noise_multiplier=multiplier,
        sample_rate=rate,
        steps_per_round=steps,
        rounds=rounds,
        hospital=hospital,
        sharing=sharing,
    )


def _auditable() -> str:
    names = ", ".join(arm.name for arm in private_arms())
    return f"one whose noise is planned before it runs: {names}"


def full_batch_mu(claim: AuditedClaim, steps: int) -> float:
    """μ = √(steps/σ² + Σ 1/z²) of steps that draw every record, and of the statistics before them.

    Exactly Gaussian DP: Dong, Roth, Su 2022 (arXiv 1905.02383), theorem 2.7 and corollary 3.3.
    """
    statistics = () if claim.sharing is None else claim.sharing.statistics
    squares = steps / claim.noise_multiplier**2 + sum(1 / z**2 for z in statistics)
    return math.sqrt(squares)
