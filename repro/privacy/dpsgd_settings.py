"""What a DP-SGD run does: public settings, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from repro.checks import (
    Number,
    check_above_zero,
    check_choice,
    check_counts,
    check_fractions,
    check_zero_or_above,
)
from repro.errors import InputError
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ENGINES
from repro.privacy.private_step import StepPlan
from repro.privacy.sampling import PoissonSampler
from repro.privacy.step import NOISES


@dataclass(frozen=True)
class DPSGDSettings:
    """What a DP-SGD run does; every field is public and none may be computed from records."""

    clip_norm: Number  # C, L2 norm of a record's whole gradient
    noise_multiplier: Number  # σ; the noise on the sum has deviation σC
    expected_batch: int  # records per step on average; the divisor of every sum
    learning_rate: Number
    optimizer: str = "sgd"  # or "adam"
    momentum: Number = 0.0  # SGD only, in [0, 1)
    weight_decay: Number = 0.0
    clipping: str = "flat"
    gamma: Number = 0.01  # of automatic clipping
    views: int = 1  # augmentations averaged per record (De et al. 2022, arXiv 2204.13650)
    noise: str = "gaussian"  # or "discrete_gaussian": exact on a grid, and slow
    engine: str = "auto"
    chunk_size: int | None = None  # records at once; changes memory and speed only

    def __post_init__(self) -> None:
        self.rule()
        check_zero_or_above(self, "noise_multiplier", "weight_decay")
        check_counts(self, expected_batch=1, views=1)
        check_above_zero(self, "clip_norm", "gamma", "learning_rate")
        check_fractions(self, "momentum", zero=True)
        check_choice("optimizer", self.optimizer, ("sgd", "adam"))
        if self.momentum and self.optimizer == "adam":
            raise InputError("momentum", self.momentum, "0, or optimizer sgd")
        check_choice("noise", self.noise, NOISES)
        check_choice("engine", self.engine, ("auto", *ENGINES))
        if self.chunk_size is not None:
            check_counts(self, chunk_size=1)

    def rule(self) -> Clipping:
        return Clipping(self.clip_norm, self.clipping, self.gamma)

    def sampler(self, records: int) -> PoissonSampler:
        """Public sampling of ``records`` records."""
        return PoissonSampler.with_expected_batch(records, self.expected_batch)

    def plan(self, records: int) -> StepPlan:
        """Of steps on ``records`` records."""
        return StepPlan(self.sampler(records), self.rule(), self.noise_multiplier, self.noise)

    def new_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam(
                parameters, lr=float(self.learning_rate), weight_decay=float(self.weight_decay)
            )
        return torch.optim.SGD(
            parameters,
            lr=float(self.learning_rate),
            momentum=float(self.momentum),
            weight_decay=float(self.weight_decay),
        )
