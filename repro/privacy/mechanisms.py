"""Update mechanisms: what a party does to its whole update before it leaves.

An update is a flat float32 vector (P,): local minus global parameters. The unit protected is
the party, not the record, unless the update came from DP-SGD.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from repro.accounting import GaussianEvent, NonPrivateEvent, PrivacyEvent, classical_sigma
from repro.checks import Number, check_above_zero, check_zero_or_above
from repro.errors import InputError
from repro.privacy.clipping import sensitivity_of
from repro.privacy.noise import add_gaussian_noise
from repro.privacy.noise_key import digest, noise_keys
from repro.randomness import RootSeed
from repro.shapes import Float


@dataclass(frozen=True)
class MechanismReport:
    """What a mechanism did. ``norm`` is of the raw update: for diagnostics, never released."""

    norm: float  # L2, before clipping; NaN or Inf for an update that is not finite
    clipped: bool
    non_finite: bool  # the update was replaced by zero
    noise_std: float  # deviation of the noise on every coordinate; 0 for none
    seed_source: str


Update = Float[Tensor, " params"]
Sent = tuple[Update, MechanismReport]


@runtime_checkable
class UpdateMechanism(Protocol):
    """update (P,) -> (what is sent (P,), report); the input is not changed.

    name: what a ledger calls it; None: it promises nothing.
    """

    @property
    def name(self) -> str | None: ...

    def event(self, unit: str) -> PrivacyEvent | None:
        """What sending an update costs ``unit``, whose update it is; None: it promises nothing."""
        ...

    def __call__(self, update: Update, *, seed: RootSeed, party: int, round: int) -> Sent: ...


@dataclass(frozen=True)
class Identity:
    """Send the update as it is, or zero if it is not finite."""

    name: ClassVar[str | None] = None

    def event(self, unit: str) -> PrivacyEvent | None:
        return None

    def __call__(self, update: Update, *, seed: RootSeed, party: int, round: int) -> Sent:
        return _bounded(update, math.inf, seed)


@dataclass(frozen=True)
class ClipUpdate:
    """Scale the update to an L2 norm of at most ``clip_norm``. Without noise: no guarantee."""

    clip_norm: Number
    name: ClassVar[str | None] = "clipping only"

    def __post_init__(self) -> None:
        check_above_zero(self, "clip_norm")

    def event(self, unit: str) -> PrivacyEvent | None:
        return NonPrivateEvent(unit=unit)

    def sensitivity(self, relation: str = "add_remove") -> float:
        return sensitivity_of(self.clip_norm, relation)

    def __call__(self, update: Update, *, seed: RootSeed, party: int, round: int) -> Sent:
        return _bounded(update, float(self.clip_norm), seed)


@dataclass(frozen=True)
class ClipAndNoiseUpdate(ClipUpdate):
    """Clip to ``clip_norm``, then add N(0, noise_std²) to every coordinate.

    noise_std is absolute: ``noise_std / sensitivity(relation)`` is the noise multiplier. A
    non-finite update becomes zero and is noised like any other.
    """

    noise_std: Number
    name: ClassVar[str | None] = "gaussian update"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_zero_or_above(self, "noise_std")

    def event(self, unit: str) -> PrivacyEvent | None:
        return GaussianEvent(self.noise_std / self.sensitivity(), unit=unit)

    def __call__(self, update: Update, *, seed: RootSeed, party: int, round: int) -> Sent:
        sent, report = _bounded(update, float(self.clip_norm), seed)
        if self.noise_std:
            covered = digest(sent, note=f"deviation {float(self.noise_std)!r}")
            noise_keys.use("update", seed, covered, party=party, round=round)
        key = seed.derive("update-noise", party)
        add_gaussian_noise(sent, std=self.noise_std, seed=key, step=round)
        return sent, replace(report, noise_std=float(self.noise_std))


def local_dp_mod_sigma(epsilon: Number, delta: Number, sensitivity: Number) -> float:
    """Noise deviation of Flower's ``LocalDpMod``: ``classical_sigma``'s, proved for ε < 1 only.

    The paper's setting (6, 1.9e-4, sensitivity 1) gives 0.698873, used outside that range.
    """
    return classical_sigma(epsilon, sensitivity, delta)


def _bounded(update: Tensor, clip_norm: float, seed: RootSeed) -> Sent:
    if update.ndim != 1 or update.dtype != torch.float32:
        raise InputError(
            "update", f"{update.dtype} {tuple(update.shape)}", "a flat float32 vector (P,)"
        )
    # float64: a float32 sum of squares of a finite update can overflow.
    norm = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    finite = math.isfinite(norm)
    if not finite:
        sent = torch.zeros_like(update)
    elif norm > clip_norm:
        sent = (update.double() * (clip_norm / norm)).float()
    else:
        sent = update.clone()
    report = MechanismReport(norm, finite and norm > clip_norm, not finite, 0.0, seed.source)
    return sent, report
