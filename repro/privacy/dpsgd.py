"""DP-SGD on one hospital's records (Abadi et al. 2016, Algorithm 1), for one round.

Poisson batches at a public rate, one private sum a step, division by the public expected batch
size, then any optimizer: everything after the noisy sum is post-processing. Batch, dropout
masks, augmentations and noise of a step are functions of (seed, hospital, round, step), so a
run restored from its state gives the bits of an uninterrupted one, and no noise is used twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import InputError
from repro.privacy.averaging import ParameterAverage
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ENGINES, Engine
from repro.privacy.per_sample import LossFunction
from repro.privacy.sampling import PoissonSampler
from repro.privacy.step import NOISES, NoisySum, clipped_noisy_sum
from repro.privacy.validation import (
    Number,
    check_batch,
    check_count,
    check_not_negative,
    check_positive,
    refuse_mixing,
    trainable_parameters,
)
from repro.random import RootSeed

Augment = Callable[[Tensor, torch.Generator], Tensor]
_WORD = 2**32


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
    average_decay: Number | None = None  # of the exponential moving average of parameters
    noise: str = "gaussian"  # or "discrete_gaussian": exact on a grid, and slow
    engine: str = "auto"
    chunk_size: int | None = None  # records at once; changes memory and speed only

    def __post_init__(self) -> None:
        self.rule()
        check_not_negative("noise_multiplier", self.noise_multiplier)
        check_count("expected_batch", self.expected_batch)
        check_positive("learning_rate", self.learning_rate)
        check_not_negative("weight_decay", self.weight_decay)
        check_count("views", self.views)
        if self.optimizer not in ("sgd", "adam"):
            raise InputError("optimizer", self.optimizer, "sgd or adam")
        if not 0 <= self.momentum < 1 or (self.momentum and self.optimizer == "adam"):
            raise InputError("momentum", self.momentum, "a number in [0, 1), with optimizer sgd")
        if self.average_decay is not None and not 0 <= self.average_decay < 1:
            raise InputError("average_decay", self.average_decay, "None or a number in [0, 1)")
        if self.noise not in NOISES:
            raise InputError("noise", self.noise, f"one of {', '.join(NOISES)}")
        if self.engine != "auto" and self.engine not in ENGINES:
            raise InputError("engine", self.engine, f"one of auto, {', '.join(ENGINES)}")
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)

    def rule(self) -> Clipping:
        return Clipping(self.clip_norm, self.clipping, self.gamma)

    def sampler(self, records: int) -> PoissonSampler:
        """Public sampling of ``records`` records."""
        return PoissonSampler.with_expected_batch(records, self.expected_batch)

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


@dataclass(frozen=True)
class Diagnostics:
    """Counts over drawn records, made without noise: for this machine only, never released."""

    drawn: int
    clipped: int
    non_finite: int

    @property
    def clipped_fraction(self) -> float:
        return self.clipped / max(self.drawn, 1)


@dataclass(frozen=True)
class DPSGDReport:
    """What the accountant needs: ``steps`` Poisson-sampled Gaussian steps at these two numbers.

    Unit: one record; relation: add/remove one; each step's sensitivity is ``clip_norm``.
    """

    steps: int
    noise_multiplier: float
    sample_rate: float
    clip_norm: float
    engine: str
    seed_source: str
    diagnostics: Diagnostics


class DPSGDRun:
    """One round's steps, one at a time, with a state to save between any two of them."""

    def __init__(
        self,
        settings: DPSGDSettings,
        model: nn.Module,
        loss_fn: LossFunction,
        inputs: Tensor,
        targets: Tensor,
        *,
        seed: RootSeed,
        hospital: int,
        round: int,
        augment: Augment | None = None,
    ) -> None:
        """inputs (n, …), targets (n, …): the hospital's records; the model is trained in place."""
        for name, value in [("hospital", hospital), ("round", round)]:
            if check_count(name, value, least=0) >= _WORD:
                raise InputError(name, value, "less than 2^32")
        if settings.views > 1 and augment is None:
            raise InputError("views", settings.views, "1 without an augmentation")
        self._parameters = trainable_parameters(model)
        check_batch(inputs, targets, self._parameters)
        self.sampler = settings.sampler(len(inputs))
        refuse_mixing(model, inputs)
        self.settings, self.model, self.loss_fn = settings, model, loss_fn
        self.inputs, self.targets, self.augment = inputs, targets, augment
        self.seed, self.hospital, self.round = seed, hospital, round
        self.steps = self._drawn = self._clipped = self._non_finite = 0
        self._engine = settings.engine
        self._optimizer = settings.new_optimizer(list(self._parameters.values()))
        self._average = (
            None
            if settings.average_decay is None
            else ParameterAverage(self._parameters, float(settings.average_decay))
        )

    def step(self, engine: Engine | None = None) -> None:
        """Draw a batch, take its private sum, divide by the expected batch size, update.

        engine: for this step, in place of the settings'.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self._derive("dp-sgd layers") >> 1)  # dropout masks
            noisy = self._noisy_sum(engine or self.settings.engine)
        for name, parameter in self._parameters.items():
            # Public constant: dividing by the drawn size would leak it and break the scale.
            parameter.grad = noisy.gradient[name].div_(self.settings.expected_batch)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(self._parameters)
        self.steps += 1
        self._engine = noisy.engine
        self._drawn += noisy.records
        self._clipped += noisy.clipped
        self._non_finite += noisy.non_finite

    def batch(self) -> tuple[Tensor, Tensor]:
        """The records that the next step draws: inputs (or their views) and targets."""
        drawn = self.sampler.sample(
            self.seed, hospital=self.hospital, round=self.round, step=self.steps
        ).to(self.inputs.device)
        # index_select copies whole rows, twice as fast as indexing where they are long.
        return self._views(self.inputs.index_select(0, drawn)), self.targets[drawn]

    def _noisy_sum(self, engine: str | Engine) -> NoisySum:
        settings = self.settings
        return clipped_noisy_sum(
            self.model,
            self.loss_fn,
            *self.batch(),
            clip_norm=settings.rule(),
            noise_multiplier=settings.noise_multiplier,
            seed=self.seed.derive("dp-noise", self.hospital),
            step=self.round * _WORD + self.steps,
            engine=engine,
            chunk_size=settings.chunk_size,
            views=settings.views,
            noise=settings.noise,
        )

    def _views(self, records: Tensor) -> Tensor:
        """(b, …) -> (b, …), or (b, views, …): every view augmented on its own."""
        if self.augment is None or not len(records):
            return (
                records
                if self.settings.views == 1
                else records.unsqueeze(1).expand(
                    -1, self.settings.views, *[-1] * (records.ndim - 1)
                )
            )
        generator = torch.Generator().manual_seed(self._derive("dp-sgd augmentation") >> 1)
        views = self.augment(records.repeat_interleave(self.settings.views, dim=0), generator)
        if self.settings.views == 1:
            return views
        return views.unflatten(0, (len(records), self.settings.views))

    def _derive(self, purpose: str) -> int:
        return self.seed.derive(purpose, self.hospital, self.round, self.steps)

    def report(self) -> DPSGDReport:
        return DPSGDReport(
            steps=self.steps,
            noise_multiplier=float(self.settings.noise_multiplier),
            sample_rate=float(self.sampler.sample_rate),
            clip_norm=float(self.settings.clip_norm),
            engine=self._engine,
            seed_source=self.seed.source,
            diagnostics=Diagnostics(self._drawn, self._clipped, self._non_finite),
        )

    def finish(self) -> DPSGDReport:
        """Put the averaged parameters, if any, into the model, and report."""
        if self._average is not None and self.steps:
            self._average.copy_to(self._parameters)
        return self.report()

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on besides the settings, the seed and the records."""
        return {
            "identity": self._identity(),
            "steps": self.steps,
            "counts": (self._drawn, self._clipped, self._non_finite),
            "parameters": {n: p.detach().clone() for n, p in self._parameters.items()},
            "optimizer": self._optimizer.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; refused if it is of another hospital, round, seed or setting."""
        if state["identity"] != self._identity():
            raise InputError("state", state["identity"], f"the state of {self._identity()}")
        self.steps = state["steps"]
        self._drawn, self._clipped, self._non_finite = state["counts"]
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state["parameters"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])

    def _identity(self) -> str:
        # A hash of the seed, not the seed: states are written to disk.
        fingerprint = self.seed.derive_bytes("state identity", size=8).hex()
        return (
            f"hospital {self.hospital}, round {self.round}, {len(self.inputs)} records, "
            f"seed fingerprint {fingerprint}, {self.settings}"
        )


class DPSGD:
    """DP-SGD as a local trainer: the settings, applied to any model and records."""

    def __init__(self, settings: DPSGDSettings) -> None:
        self.settings = settings

    def train(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        inputs: Tensor,
        targets: Tensor,
        *,
        seed: RootSeed,
        hospital: int,
        round: int,
        steps: int,
        augment: Augment | None = None,
    ) -> DPSGDReport:
        """Take ``steps`` private steps on ``model`` in place.

        model: as in ``per_sample_gradients``; loss_fn: one loss per record, (B,).
        inputs (n, …), targets (n, …): all records of the hospital.
        hospital, round: distinguish this call's randomness from every other's.
        steps: a public number; ``settings.sampler(n).steps_per_epoch()`` makes a local epoch.
        augment: (images (b, …), CPU generator) -> the same shape; needed for ``views`` > 1.
        """
        check_count("steps", steps, least=0)
        if steps >= _WORD:
            raise InputError("steps", steps, "less than 2^32, the noise counter's share of a round")
        run = DPSGDRun(
            self.settings,
            model,
            loss_fn,
            inputs,
            targets,
            seed=seed,
            hospital=hospital,
            round=round,
            augment=augment,
        )
        was_training = model.training
        model.train()
        try:
            for _ in range(steps):
                run.step()
        finally:
            model.train(was_training)
        return run.finish()
