"""The private step that every training here takes: draw, clip, sum, add noise, divide, optimizer.

``StepPlan`` is what of it is public: what is drawn, clipped and added, and so what it costs.
``Draws`` is its randomness but for the noise. What comes after the noisy sum is post-processing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from repro.accounting import PrivacyEvent, RepeatedEvent, banded_event
from repro.checks import Number, check_count
from repro.errors import InputError
from repro.privacy.batch import LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.sampling import PoissonSampler
from repro.privacy.step import NoisySum, clipped_noisy_sum
from repro.randomness import RootSeed

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions (b,) -> inputs and targets (b, …)
WORD = 2**32  # rounds, and steps of a round: each has half of the noise counter


@dataclass(frozen=True)
class StepPlan:
    """A training's steps, fixed before any record is read; every field is public.

    noise_multiplier: σ of what the steps cost; the noise on a sum has deviation σ · C, C the
        sensitivity that comes with ``clipping`` (more with ``bands``: ``banded_noise``).
    noise: as in ``clipped_noisy_sum``.
    """

    sampler: PoissonSampler
    clipping: Clipping
    noise_multiplier: Number
    noise: str = "gaussian"

    @property
    def event(self) -> PrivacyEvent:
        """What one step costs a record that may join it."""
        return self.spent(1).event

    def spent(self, steps: int) -> RepeatedEvent:
        """What ``steps`` steps cost a record, on the whole."""
        sampler = self.sampler
        return banded_event(self.noise_multiplier, sampler.sample_rate, sampler.bands, steps)

    def noisy_sum(
        self, model: nn.Module, loss_fn: LossFunction, batch: tuple[Tensor, Tensor], **options: Any
    ) -> NoisySum:
        """Of what a step has drawn. options: seed, step, engine, … of ``clipped_noisy_sum``."""
        return clipped_noisy_sum(
            model,
            loss_fn,
            *batch,
            clip_norm=self.clipping,
            noise_multiplier=self.noise_multiplier,
            noise=self.noise,
            **options,
        )

    def mean(self, total: Iterable[Tensor]) -> list[Tensor]:
        """``total`` ÷ the expected batch, a public constant: dividing by the drawn size would leak
        it, and give the noise another scale."""
        return [values.div(self.sampler.expected_batch) for values in total]


@dataclass(frozen=True)
class Draws:
    """What a training's steps draw: a function of the seed, the ids and the step.

    name: of the kind of training. party, round: opaque, 0 … 2³² − 1; two trainings of one seed and
    name differ in one of them, or draw the same.
    """

    seed: RootSeed
    name: str
    party: int = 0
    round: int = 0

    def __post_init__(self) -> None:
        for name in ("party", "round"):
            value = check_count(name, getattr(self, name), 0)
            if value >= WORD:
                raise InputError(name, value, "less than 2^32")
            object.__setattr__(self, name, value)

    def key(self, purpose: str, step: int) -> int:
        return self.seed.derive(f"{self.name} {purpose}", self.party, self.round, step)

    @contextmanager
    def batch(
        self, sampler: PoissonSampler, fetch: Fetch, step: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of the records that the step draws, possibly none; dropout masks and
        the like in the block are the step's own, and the global generator is left alone."""
        drawn = sampler.sample(self.seed, party=self.party, round=self.round, step=step)
        with seeded(self.key("layers", step)):
            yield fetch(drawn)


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """The global generator begins at ``key`` inside the block, and is as before after it."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(key >> 1)
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(key >> 1)
        yield


def step_with(
    optimizer: Optimizer, parameters: Iterable[nn.Parameter], gradient: Iterable[Tensor]
) -> None:
    """One step of ``optimizer`` on a released gradient, which does not stay in ``.grad``."""
    try:
        for parameter, values in zip(parameters, gradient, strict=True):
            shaped = values.view(parameter.shape)
            parameter.grad = shaped.to(parameter.device, parameter.dtype)
        optimizer.step()
    finally:
        optimizer.zero_grad(set_to_none=True)
