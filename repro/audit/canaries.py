"""Crafted records and updates whose trace is known, and how much an observed trace says.

The model is one linear layer without bias and the loss of a record is ⟨target, output⟩, so the
gradient of a record (x, t) is exactly t xᵀ, whatever the weights: a canary's direction is chosen
freely, nothing else has to be trained, and its length (LENGTH clip norms) saturates the clip norm.
Trainers that bring their own loss get a ``CanaryScore`` instead, with the same gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from repro.randomness import RootSeed
from repro.shapes import Float

LENGTH = 10.0  # of an unclipped canary, in clip norms
SIZE = 8  # parameters of the many-run model
_OTHERS = 3  # records beside the canary

Sides = Float[Tensor, "records side"]
Trial = Callable[[RootSeed, bool], float]  # one run's score, with or without the canary


def record_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """⟨target, output⟩ of each record, (B,)."""
    return (outputs * targets).sum(dim=1)


def linear_model(inputs: int, outputs: int) -> nn.Linear:
    """The model under audit, its weights (outputs, inputs) zero."""
    model = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(model.weight)
    return model


class CanaryScore(nn.Module):
    """x = (a, b) ↦ logits (0, aᵀ W b): (B, 2·side) -> (B, 2), W (side, side), zero.

    For trainers whose loss is the cross-entropy. The gradient of a record of label 0 is p·a bᵀ, p
    the probability of the other class, ½ at W = 0: its direction is chosen freely here too.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(side, side))

    def forward(self, x: Float[Tensor, "b two_sides"]) -> Float[Tensor, "b 2"]:
        left, right = x.chunk(2, dim=1)
        score = ((left @ self.weight) * right).sum(dim=1)
        return torch.stack([torch.zeros_like(score), score], dim=1)


@dataclass(frozen=True)
class OneCanary:
    """Some ordinary records, and the canary that is in the data or not.

    The canary's gradient has the part ``part`` of its length on coordinate 0, where it is looked
    for, and the rest on coordinate 1; the others have nothing on either. An attacker who looks at
    one coordinate only post-processes, so every bound holds; a small part keeps tests of mechanisms
    with little noise away from certainty, where they could not tell how little.
    """

    others: Float[Tensor, "records size"]
    canary: Float[Tensor, "1 size"]

    @classmethod
    def make(cls, clip_norm: float, part: float, seed: RootSeed) -> OneCanary:
        generator = seed.torch_generator("audit records")
        others = torch.randn(_OTHERS, SIZE, generator=generator) * clip_norm
        others[:, :2] = 0
        canary = torch.zeros(1, SIZE)
        canary[0, 0] = LENGTH * clip_norm * part
        canary[0, 1] = LENGTH * clip_norm * math.sqrt(1 - part**2)
        return cls(others, canary)

    def records(self, present: bool) -> Float[Tensor, "records size"]:
        return torch.cat([self.others, self.canary]) if present else self.others


@dataclass(frozen=True)
class OrthogonalCanaries:
    """m = side² canaries, each with a parameter of a (side, side) layer to itself."""

    side: int
    clip_norm: float

    @classmethod
    def at_most(cls, count: int, clip_norm: float) -> OrthogonalCanaries:
        return cls(math.isqrt(count), clip_norm)

    @property
    def count(self) -> int:
        return self.side**2

    def records(self, chosen: np.ndarray) -> tuple[Sides, Sides]:
        """Inputs and targets of the canaries at ``chosen`` (n,), positions of flat parameters."""
        index = torch.from_numpy(chosen)
        targets = torch.zeros(len(index), self.side)
        inputs = torch.zeros(len(index), self.side)
        rows = torch.arange(len(index))
        targets[rows, index // self.side] = 1.0
        inputs[rows, index % self.side] = LENGTH * self.clip_norm
        return inputs, targets

    def features(self, chosen: np.ndarray) -> Float[Tensor, "records two_sides"]:
        """The same canaries as records of label 0 for a ``CanaryScore``."""
        inputs, targets = self.records(chosen)
        return torch.cat([2 * targets, inputs], dim=1)  # p = ½


def log_likelihood_ratio(
    trace: np.ndarray, noise_multiplier: float, sample_rate: float
) -> np.ndarray:
    """log of p(y | canary) / p(y | no canary) for one stated step, elementwise, float64.

    trace y: in clip norms; N(0, σ²) without, (1 − q)·N(0, σ²) + q·N(1, σ²) with the canary, the
    dominating pair of the Poisson-subsampled Gaussian (Zhu, Dong, Wang 2022, arXiv 2106.08567).
    """
    shifted = (2 * trace - 1) / (2 * noise_multiplier**2)
    if sample_rate >= 1:
        return np.asarray(shifted)
    return np.logaddexp(math.log1p(-sample_rate), math.log(sample_rate) + shifted)
