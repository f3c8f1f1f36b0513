"""DP-SGD on one's own model, optimizer, scheduler and data, at a target (ε, δ).

    training = make_private(
        model, optimizer, loader, loss_fn=nn.CrossEntropyLoss(reduction="none"),
        target_epsilon=6.0, target_delta=1e-5, epochs=10, clip_norm=1.0,
    )
    while not training.finished:
        training.train_epoch()
    print(training.statement())

**Formal guarantee.** Let D and D′ differ in one record, which one of them lacks (add/remove;
sample rate, expected batch and number of steps are public constants, so where the number of
records is not itself secret this is the zero-out relation). The model, the optimizer's and the
scheduler's state after every step, all of them together, are (ε, δ)-differentially private for
a record, with ε = ``training.epsilon()`` ≤ ``target_epsilon`` and δ = ``target_delta``: each step
is one Poisson-subsampled Gaussian mechanism of noise multiplier σ (Abadi et al. 2016, Algorithm
1), whose sum ``clipped_noisy_sum`` makes; optimizer and scheduler only process what it released
(post-processing), and the steps compose. ε is the smallest that is proved: by the privacy loss
distribution or by Rényi divergences, exactly where every step takes all records
(docs/accounting.md); noise is planned by the same, and ``statement`` names the proof. It holds in
exact arithmetic; what float noise leaves open is said in docs/dp-core.md. It does not cover how
hyper-parameters were chosen, nor ``seed``s that are known to others.

====================================  =========================================================
case                                  what happens
====================================  =========================================================
a Poisson batch is empty              the step is taken on noise alone
a record's gradient is NaN or Inf     it contributes exactly zero
``batch_size`` = number of records    sample rate 1: every step sees every record
the budget is spent                   ``step`` raises; the plan cannot be stretched
``optimizer.step()`` called directly  raises: a gradient of one's own would not be accounted for
BatchNorm, or outputs that mix        refused before anything is drawn
a sampler of the loader's own         refused: it would be dropped silently
the loader's workers, ``drop_last``   not used: a batch is fetched in this process
frozen parameters                     neither clipped, noised nor changed
resumed in another process            same numbers with ``seed``; without, fresh noise and batches
one ``seed`` twice in a process       the same bits, or refused: on other data or another plan the
                                      noise would be used again
====================================  =========================================================
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from repro.accounting import (
    Bound,
    PoissonSampledGaussianEvent,
    calibrate_noise_multiplier,
    checks,
    compose_epsilon,
)
from repro.errors import InputError
from repro.privacy.clipping import Clipping
from repro.privacy.per_sample import LossFunction
from repro.privacy.records import Data, Records, batch_size_of
from repro.privacy.sampling import PoissonSampler
from repro.privacy.step import NOISES, clipped_noisy_sum
from repro.privacy.training_checks import HELD, check_optimizer, check_scheduler, check_together
from repro.privacy.validation import (
    Number,
    check_count,
    check_positive,
    trainable_parameters,
)
from repro.random import RootSeed


def make_private(
    model: nn.Module,
    optimizer: Optimizer,
    data: Data,
    *,
    loss_fn: LossFunction,
    target_epsilon: Number,
    target_delta: Number,
    epochs: Number,
    clip_norm: Number,
    batch_size: int | None = None,
    scheduler: LRScheduler | None = None,
    scheduler_every: str = "epoch",
    seed: int | None = None,
    engine: str = "auto",
    chunk_size: int | None = None,
    noise: str = "gaussian",
) -> PrivateTraining:
    """Plan a private training of ``model``; nothing is trained yet. See the module's docstring.

    model: keeps records apart, (b, …) -> (b, …); trained in place, in the modes its modules are
        in (call ``model.train()`` for dropout).
    optimizer: any ``torch.optim`` optimizer that takes no closure, fresh, over all of the model's
        parameters that have gradients and no others.
    data: a map-style Dataset of (input, target) tensors, or a DataLoader of one.
    loss_fn: (outputs, targets) -> one loss per record, (b,): ``reduction="none"``.
    target_epsilon, target_delta: what the whole training may spend; δ below 1 ÷ records.
    epochs: passes over the data on average, above 0; sets the number of steps.
    clip_norm: C, the largest L2 norm of a record's gradient in the sum.
    batch_size: records per step on average (default: the DataLoader's).
    scheduler: of this optimizer; stepped for you after every ``scheduler_every`` (epoch or step).
    seed: reproducible, NOT private; None takes keys from the operating system.
    engine, chunk_size, noise: as in ``clipped_noisy_sum``.

    Raises InputError, in one line, for all that is refused.
    """
    parameters = trainable_parameters(model)
    check_optimizer(optimizer, model, parameters)
    check_scheduler(scheduler, scheduler_every, optimizer)
    check_positive("target_epsilon", target_epsilon)
    check_positive("epochs", epochs)
    Clipping(clip_norm)
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
    if noise not in NOISES:
        raise InputError("noise", noise, f"one of {', '.join(NOISES)}")
    device = next(iter(parameters.values())).device
    records = Records(data, device)
    if not 0 < target_delta < 1 / records.count:
        raise InputError(
            "target_delta", target_delta, f"above 0 and below 1 ÷ {records.count} records"
        )
    expected = batch_size if batch_size is not None else batch_size_of(data)
    if expected is None:
        raise InputError("batch_size", None, "a number of records, since data is a Dataset")
    sampler = PoissonSampler.with_expected_batch(records.count, expected)
    check_together(model, loss_fn, records, parameters, engine)
    steps = max(1, math.ceil(epochs * sampler.steps_per_epoch() * (1 - 1e-12)))
    # The least noise that any proof allows; a fraction of a second in most plans, 3 s in some.
    multiplier, _ = calibrate_noise_multiplier(
        target_epsilon, target_delta, sampler.sample_rate, steps, accountant="best"
    )
    return PrivateTraining(
        model,
        optimizer,
        records,
        loss_fn,
        sampler,
        steps=steps,
        noise_multiplier=multiplier,
        clip_norm=float(clip_norm),
        delta=float(target_delta),
        scheduler=scheduler,
        scheduler_every=scheduler_every,
        seed=RootSeed.from_entropy() if seed is None else RootSeed.from_user(seed),
        options={"engine": engine, "chunk_size": chunk_size, "noise": noise},
    )


class PrivateTraining:
    """A planned private training, one step at a time; ``make_private`` makes it.

    planned_steps, steps: how many there will be, and how many were taken.
    steps_per_epoch: in which each record takes part once on average.
    noise_multiplier: σ; the noise on a step's sum has deviation σ · ``clip_norm``.
    sample_rate: probability with which each record joins a step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        records: Records,
        loss_fn: LossFunction,
        sampler: PoissonSampler,
        *,
        steps: int,
        noise_multiplier: float,
        clip_norm: float,
        delta: float,
        scheduler: LRScheduler | None,
        scheduler_every: str,
        seed: RootSeed,
        options: dict[str, Any],
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.planned_steps, self.steps = steps, 0
        self.steps_per_epoch = sampler.steps_per_epoch()
        self.noise_multiplier, self.clip_norm, self.delta = noise_multiplier, clip_norm, delta
        self.sample_rate = float(sampler.sample_rate)
        self._records, self._loss_fn, self._sampler = records, loss_fn, sampler
        self._seed, self._options = seed, options
        self._scheduler_period = self.steps_per_epoch if scheduler_every == "epoch" else 1
        self._parameters = trainable_parameters(model)
        self._ours = False
        self._hook = optimizer.register_step_pre_hook(self._refuse_other_steps)
        HELD.add(optimizer)

    @property
    def finished(self) -> bool:
        return self.steps >= self.planned_steps

    @property
    def epoch(self) -> float:
        """Passes over the data so far, on average."""
        return self.steps / self.steps_per_epoch

    def step(self) -> None:
        """One private step: Poisson batch, clipped noisy sum, ÷ expected batch, optimizer."""
        if self.finished:
            raise InputError(
                "step", self.steps + 1, f"at most {self.planned_steps}, which the noise is set for"
            )
        gradient = self._noisy_sum()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # whatever was left there has no noise
        for name, parameter in self._parameters.items():
            # Public constant: dividing by the drawn size would leak it.
            parameter.grad = gradient[name].div_(self._sampler.expected_batch)
        self._ours = True
        try:
            self.optimizer.step()
        finally:
            self._ours = False
            self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        if self.scheduler is not None and self.steps % self._scheduler_period == 0:
            self.scheduler.step()

    def train_epoch(self) -> None:
        """The steps that are left of this epoch, or of the plan where that ends first."""
        if self.finished:
            self.step()  # refuses
        last = (self.steps // self.steps_per_epoch + 1) * self.steps_per_epoch
        while self.steps < min(last, self.planned_steps):
            self.step()

    def epsilon(self, delta: Number | None = None) -> float:
        """ε that the steps so far have spent, at the planned δ or another one."""
        return self.bound(delta).epsilon

    def bound(self, delta: Number | None = None) -> Bound:
        """The same with the proof that gave it, the one whose ε is smallest, and all others' ε.

        ``method``: ``pld`` (privacy loss distribution), ``gaussian`` (every step takes all records:
        exact), or ``rdp``, also where there are more steps than a loss distribution can hold.
        """
        event = PoissonSampledGaussianEvent(self.noise_multiplier, self.sample_rate)
        at = checks.delta(self.delta if delta is None else delta)
        return compose_epsilon({event: self.steps}, checks.ADD_REMOVE, checks.RECORD, at)

    def statement(self) -> str:
        """The guarantee so far, and whose proof it is, in one line."""
        bound = self.bound()
        return (
            f"ε = {bound.epsilon:.4g} at δ = {self.delta:g} for a record (add/remove), after "
            f"{self.steps} of {self.planned_steps} steps of Poisson-sampled Gaussian noise "
            f"(σ = {self.noise_multiplier:.4g}, rate {self.sample_rate:.4g}, clip norm "
            f"{self.clip_norm:g}); accountant: {bound.accountant}; "
            f"noise keys from: {self._seed.source}"
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on but data and seed; ``torch.save`` takes it."""
        return {
            "plan": self._plan(),
            "steps": self.steps,
            "model": {n: t.detach().clone() for n, t in self.model.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, on a training of the same plan that has taken no step yet.

        Without ``seed`` the steps to come draw fresh noise. Going on twice from one state
        releases two continuations: this one's ε does not cover the other.
        """
        if self.steps:
            raise InputError("state", f"a training at step {self.steps}", "one at its beginning")
        if state["plan"] != self._plan():
            raise InputError("state", state["plan"], f"the state of {self._plan()}")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as problem:
            raise InputError("state", str(problem), "one of this model and optimizer") from None
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.steps = state["steps"]

    def close(self) -> None:
        """Give the optimizer back: its own ``step`` works again, and no ε covers that."""
        self._hook.remove()
        HELD.discard(self.optimizer)
        self.planned_steps = self.steps

    def _noisy_sum(self) -> dict[str, Tensor]:
        drawn = self._sampler.sample(self._seed, hospital=0, round=0, step=self.steps)
        with torch.random.fork_rng():  # dropout masks and augmentations of the data set
            torch.manual_seed(self._seed.derive("make-private layers", self.steps) >> 1)
            inputs, targets = self._records.fetch(drawn)
            return clipped_noisy_sum(
                self.model,
                self._loss_fn,
                inputs,
                targets,
                clip_norm=self.clip_norm,
                noise_multiplier=self.noise_multiplier,
                seed=self._seed.derive("make-private noise"),
                step=self.steps,
                **self._options,
            ).gradient

    def _plan(self) -> dict[str, Any]:
        """What two trainings must share for one to go on from the other's state."""
        reproducible = not self._seed.private
        fingerprint = self._seed.derive_bytes("state identity", size=8).hex()
        return {
            "records": self._records.count,
            "sample_rate": self.sample_rate,
            "steps": self.planned_steps,
            "noise_multiplier": self.noise_multiplier,
            "clip_norm": self.clip_norm,
            "delta": self.delta,
            "optimizer": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "seed": fingerprint if reproducible else None,  # a hash: states lie on disks
        }

    def _refuse_other_steps(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._ours:
            raise InputError(
                "optimizer.step()",
                "a call of one's own",
                "PrivateTraining.step(), whose gradient has noise; close() gives it back",
            )
