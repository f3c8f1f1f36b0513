"""Step t's noisy sum of a planned training: a function of seed, data, model and t alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from repro.checks import Number
from repro.privacy.banded_noise import BandedNoise
from repro.privacy.batch import LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.gate import check_again
from repro.privacy.noise_key import digest
from repro.privacy.private_step import StepPlan, seeded
from repro.privacy.ranks import Ranks
from repro.privacy.records import Records
from repro.privacy.several_inputs import one_tensor
from repro.privacy.step import NoisySum, most_at_once
from repro.privacy.training_checks import PROBED
from repro.privacy.validation import trainable_parameters
from repro.randomness import RootSeed


@dataclass(frozen=True)
class DrawnGradients:
    """Where a training's gradients come from.

    model: as it takes one tensor a record (``check_together``). plan: with the first step's clip
    norm. banded: of the sampler's bands. options: engine and chunk_size of ``clipped_noisy_sum``.
    """

    model: nn.Module
    records: Records
    loss_fn: LossFunction
    plan: StepPlan
    seed: RootSeed
    banded: BandedNoise
    options: dict[str, Any]
    ranks: Ranks

    def noisy_sum(self, step: int, *, clip_norm: Number, noise_multiplier: Number) -> NoisySum:
        """Of step ``step``'s Poisson batch. Its gradients are in the order of the parameters."""
        plan = replace(
            self.plan,
            clipping=Clipping(clip_norm),
            noise_multiplier=noise_multiplier * self.banded.fresh,
        )
        key = self.seed.derive("make-private noise")
        drawn = plan.sampler.sample(self.seed, party=0, round=0, step=step)
        mine = drawn[self.ranks.rank :: self.ranks.size]
        rank = (self.ranks.rank,) if self.ranks.rank else ()
        with seeded(self.seed.derive("make-private layers", step, *rank)):  # also of the data set
            with self.ranks.all_or_none(self._same):
                inputs, targets = self.records.fetch(mine)
            with one_tensor(self.model, inputs) as rows:
                noisy = plan.noisy_sum(
                    self.model,
                    self.loss_fn,
                    (rows, targets),
                    seed=key,
                    step=step,
                    ranks=self.ranks,
                    **self.options,
                )
        deviation = plan.noise_multiplier * plan.clipping.sensitivity("add_remove")
        return self.banded.less_the_past(noisy, std=deviation, seed=key, step=step)

    def _same(self) -> dict[str, Any]:
        """What is equal on all ranks before every step, and after the last."""
        return {"model": digest(*trainable_parameters(self.model).values()).hex()}

    def look_again(self, used: str) -> None:
        """The gate once more, with the engine of the last step; raises ``Voided``."""
        expected = max(1, round(self.plan.sampler.expected_batch))
        with self.ranks.all_or_none(self._same):
            with torch.random.fork_rng():
                inputs, targets = self.records.first(PROBED)
            with one_tensor(self.model, inputs) as rows:
                check_again(
                    self.model,
                    self.loss_fn,
                    rows,
                    targets,
                    used=used,
                    at_once=most_at_once(expected, self.options["chunk_size"]),
                )
