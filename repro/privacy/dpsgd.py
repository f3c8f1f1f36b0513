"""DP-SGD on one party's records (Abadi et al. 2016, Algorithm 1), for one round.

Poisson batches at a public rate, one private sum a step, division by the public expected batch
size, then any optimizer: everything after the noisy sum is post-processing. Batch, dropout
masks, augmentations and noise of a step are functions of (seed, party, round, step), so a
run restored from its state gives the bits of an uninterrupted one, and no noise is used twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repro.checks import check_count
from repro.errors import InputError
from repro.privacy.batch import LossFunction
from repro.privacy.dpsgd_settings import DPSGDSettings
from repro.privacy.engines import ENGINES
from repro.privacy.gate import EngineChoice, Voided, check_again, check_engine, training_mode
from repro.privacy.noise_key import NoiseReused
from repro.privacy.private_step import WORD, Draws, step_with
from repro.privacy.step import NoisySum, most_at_once
from repro.privacy.validation import check_batch, trainable_parameters
from repro.randomness import RootSeed

__all__ = ["DPSGD", "DPSGDReport", "DPSGDRun", "DPSGDSettings", "Diagnostics"]

Augment = Callable[[Tensor, torch.Generator], Tensor]
_PROBED = 16  # records that the engines are tried on, at most


@dataclass(frozen=True)
class Diagnostics:
    """Counts over drawn records, made without noise: for this machine only, never released.

    engine_reason: why the run did not use the fast engine, if it asked for ``auto``; it may
        quote differences measured on records.
    """

    drawn: int
    clipped: int
    non_finite: int
    engine_reason: str | None = None


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
        party: int,
        round: int,
        augment: Augment | None = None,
    ) -> None:
        """inputs (n, …), targets (n, …): the party's records; the model is trained in place.

        The engine is tried on a few records here, as ``check_engine`` says, with the model in
        training mode (a model in training mode already keeps what is frozen inside it), and
        pinned.
        """
        self._draws = Draws(seed, "dp-sgd", party, round)
        if settings.views > 1 and augment is None:
            raise InputError("views", settings.views, "1 without an augmentation")
        self._parameters = trainable_parameters(model)
        check_batch(inputs, targets, self._parameters)
        self.plan = settings.plan(len(inputs))
        self.settings, self.model, self.loss_fn = settings, model, loss_fn
        self.inputs, self.targets, self.augment = inputs, targets, augment
        self.steps = self._drawn = self._clipped = self._non_finite = 0
        self._void: Voided | None = None
        with training_mode(model):
            self._pin()
        self._optimizer = settings.new_optimizer(list(self._parameters.values()))

    def step(self) -> None:
        """Draw a batch, take its private sum, divide by the expected batch size, update.

        Raises ``Voided`` where records turn out to have mixed in steps before, from then on and in
        ``report`` too: there is no guarantee to report.
        """
        self._refuse_void()
        if self._modes != _modes(self.model):  # other layers take part: tried again
            self._pin()
        with self._draws.batch(self.plan.sampler, self._fetch, self.steps) as batch:
            noisy = self._noisy_sum(batch)
        self.steps += 1  # released from here on, whatever becomes of it
        gradient = self.plan.mean(noisy.gradient.values())
        step_with(self._optimizer, self._parameters.values(), gradient)
        self._note_engine(noisy)
        self._drawn += noisy.records
        self._clipped += noisy.clipped
        self._non_finite += noisy.non_finite

    def _pin(self) -> None:
        """Try the engines in the mode the model is in now."""
        self._modes = _modes(self.model)
        records = self._views(self.inputs[:_PROBED])
        self._choice = check_engine(
            self.model,
            self.loss_fn,
            records,
            self.targets[: len(records)],
            engine=self.settings.engine,
            views=self.settings.views,
        )
        self._engine = self._choice.engine.name

    def _note_engine(self, noisy: NoisySum) -> None:
        """An engine that failed in a step is not tried again: the run goes on with the other."""
        self._engine = noisy.engine
        failed = noisy.engine_reason not in (None, self._choice.reason)
        if failed and noisy.engine == "vmap":
            self._choice = EngineChoice(ENGINES["vmap"], "auto", noisy.engine_reason)

    def _fetch(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (or their views) and targets of these records."""
        drawn = drawn.to(self.inputs.device)
        # index_select copies whole rows, twice as fast as indexing where they are long.
        return self._views(self.inputs.index_select(0, drawn)), self.targets[drawn]

    def _noisy_sum(self, batch: tuple[Tensor, Tensor]) -> NoisySum:
        draws = self._draws
        try:
            return self.plan.noisy_sum(
                self.model,
                self.loss_fn,
                batch,
                seed=draws.seed.derive("dp-noise", draws.party),
                step=draws.round * WORD + self.steps,
                engine=self._choice,
                chunk_size=self.settings.chunk_size,
                views=self.settings.views,
            )
        except Voided as problem:
            self._void = problem
            raise
        except NoiseReused:
            where = f"party {draws.party}, round {draws.round}, step {self.steps}"
            raise NoiseReused(where) from None

    def _views(self, records: Tensor) -> Tensor:
        """(b, …) -> (b, …), or (b, views, …): every view augmented on its own."""
        views = self.settings.views
        if self.augment is None or not len(records):
            own = records.shape[1:]
            return records if views == 1 else records.unsqueeze(1).expand(-1, views, *own)
        key = self._draws.key("augmentation", self.steps)
        generator = torch.Generator().manual_seed(key >> 1)
        made = self.augment(records.repeat_interleave(views, dim=0), generator)
        return made if views == 1 else made.unflatten(0, (len(records), views))

    def report(self) -> DPSGDReport:
        self._refuse_void()
        return DPSGDReport(
            steps=self.steps,
            noise_multiplier=float(self.settings.noise_multiplier),
            sample_rate=float(self.plan.sampler.sample_rate),
            clip_norm=float(self.settings.clip_norm),
            engine=self._engine,
            seed_source=self._draws.seed.source,
            diagnostics=Diagnostics(
                self._drawn, self._clipped, self._non_finite, self._choice.reason
            ),
        )

    def look_again(self) -> None:
        """The gate once more, with the engine that was used and on the model as it is now.

        Raises ``Voided`` where that would not pass: what the steps released has no guarantee. The
        steps look again too, at their own batches; this is for after the last one.
        """
        if not self.steps or not len(self.inputs):
            return
        records, settings = self._views(self.inputs[:_PROBED]), self.settings
        expected = max(1, round(float(settings.expected_batch)))
        try:
            with training_mode(self.model):
                check_again(
                    self.model,
                    self.loss_fn,
                    records,
                    self.targets[: len(records)],
                    used=self._engine,
                    at_once=most_at_once(expected, settings.chunk_size, settings.views),
                    views=settings.views,
                )
        except Voided as problem:
            self._void = problem
            raise

    def _refuse_void(self) -> None:
        if self._void is not None:
            raise self._void

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on besides the settings, the seed and the records."""
        return {
            "identity": self._identity(),
            "steps": self.steps,
            "void": self._void and (self._void.field, str(self._void.value), self._void.expected),
            "engine": self._engine,
            "counts": (self._drawn, self._clipped, self._non_finite),
            "parameters": {n: p.detach().clone() for n, p in self._parameters.items()},
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),  # torch's own is live
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``; refused if it is of another party, round, seed or setting."""
        if state["identity"] != self._identity():
            raise InputError("state", state["identity"], f"the state of {self._identity()}")
        self.steps = state["steps"]
        self._void = Voided(*void) if (void := state.get("void")) else None
        self._drawn, self._clipped, self._non_finite = state["counts"]
        if state["engine"] == "vmap" != self._engine:  # the fast one failed before the save
            self._choice = EngineChoice(ENGINES["vmap"], "auto", "it failed in an earlier step")
            self._engine = "vmap"
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state["parameters"][name])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))

    def _identity(self) -> str:
        draws = self._draws
        # A hash of the seed, not the seed: states are written to disk.
        fingerprint = draws.seed.derive_bytes("state identity", size=8).hex()
        return (
            f"party {draws.party}, round {draws.round}, {len(self.inputs)} records, "
            f"seed fingerprint {fingerprint}, {self.settings}"
        )


def _modes(model: nn.Module) -> tuple[bool, ...]:
    return tuple(module.training for module in model.modules())


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
        party: int,
        round: int,
        steps: int,
        augment: Augment | None = None,
        more_rounds: bool = False,
    ) -> DPSGDReport:
        """Take ``steps`` private steps on ``model`` in place.

        model: as in ``per_sample_gradients``; trained in training mode, except for layers that
            are in evaluation mode inside a model in training mode (frozen BatchNorm).
        loss_fn: one loss per record, (B,).
        inputs (n, …), targets (n, …): all records of the party.
        party, round: distinguish this call's randomness from every other's.
        steps: a public number; ``settings.sampler(n).steps_per_epoch()`` makes a local epoch.
        augment: (images (b, …), CPU generator) -> the same shape; needed for ``views`` > 1.
        more_rounds: this is not the last one of its training, after which the gate is passed once
            more (``DPSGDRun.look_again``); it costs as much as at the start.

        Raises ``Voided`` where records turn out to have mixed in steps already taken.
        """
        steps = check_count("steps", steps, least=0)
        if steps >= WORD:
            raise InputError("steps", steps, "less than 2^32, the noise counter's share of a round")
        with training_mode(model):
            run = DPSGDRun(
                self.settings,
                model,
                loss_fn,
                inputs,
                targets,
                seed=seed,
                party=party,
                round=round,
                augment=augment,
            )
            for _ in range(steps):
                run.step()
            if not more_rounds:
                run.look_again()
        return run.report()
