"""A planned private training, one step at a time: what ``make_private`` returns.

The guarantee, and what happens in every odd case, is said in ``repro.privacy.planning``.
"""

from __future__ import annotations

import copy
import os
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from repro.accounting import EpsilonBound, checks, compose_epsilon
from repro.accounting.composition import NO_BOUND
from repro.checks import Number
from repro.errors import InputError
from repro.privacy.adaptive_clipping import ClipNorm
from repro.privacy.drawn_gradients import DrawnGradients
from repro.privacy.gate import Voided
from repro.privacy.ranks import RankFailed
from repro.privacy.released_gradient import ReleasedGradient
from repro.privacy.training_checks import HELD
from repro.privacy.validation import trainable_parameters


class PrivateTraining:
    """A planned private training, one step at a time; ``make_private`` makes it.

    planned_steps, steps: how many there will be, and how many were taken.
    steps_per_epoch: in which each record takes part once on average.
    noise_multiplier: σ; the noise on a step's sum has deviation σ · ``clip_norm`` (with adaptive
        clipping and ``bands`` more: ``repro.privacy.adaptive_clipping``, ``banded_noise``).
    sample_rate: probability with which each record joins a step (that its band may join).
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        source: DrawnGradients,
        *,
        steps: int,
        clip_norm: ClipNorm,
        delta: float,
        scheduler: LRScheduler | None,
        scheduler_every: str,
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self._planned_steps, self._steps = steps, 0
        self._void: str | None = None
        self._used = ""  # engine of the last step
        self.steps_per_epoch = source.plan.sampler.steps_per_epoch()
        self._clip_norm, self._delta = clip_norm, delta
        self._process = os.getpid()
        self._source, self._seed = source, source.seed
        self._scheduler_period = self.steps_per_epoch if scheduler_every == "epoch" else 1
        self._parameters = trainable_parameters(model)
        self._modes = [(module, module.training) for module in model.modules()]
        self._ours = False
        self._waiting: ReleasedGradient | None = None
        self._hooks = (
            optimizer.register_step_pre_hook(self._refuse_other_steps),
            optimizer.register_step_post_hook(self._after_own_step),
        )
        HELD.add(optimizer)

    # What ε is stated from is what the steps were taken with, so none of it can be set.

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def planned_steps(self) -> int:
        return self._planned_steps

    @property
    def noise_multiplier(self) -> float:
        return float(self._source.plan.noise_multiplier)

    @property
    def clip_norm(self) -> float:
        """C of the next step."""
        return self._clip_norm.value

    @property
    def delta(self) -> float:
        return self._delta

    @property
    def sample_rate(self) -> float:
        return float(self._source.plan.sampler.sample_rate)

    @property
    def bands(self) -> int:
        return self._source.banded.bands

    @property
    def finished(self) -> bool:
        return self.steps >= self.planned_steps

    @property
    def epoch(self) -> float:
        """Passes over the data so far, on average."""
        return self.steps / self.steps_per_epoch

    @property
    def void(self) -> str | None:
        """Why the steps so far have no guarantee: records were found to mix after some of them
        were released. None if nothing of that kind was seen."""
        return self._void

    def step(self) -> None:
        """One private step: Poisson batch, clipped noisy sum, ÷ expected batch, optimizer.

        A model that was in training mode when this was planned and is in evaluation mode as a
        whole, after a validation say, is put back first: every module in the mode it had then.
        The model is looked at once more in every step, and after the last. Raises ``Voided`` (an
        InputError) where it turns out that records may have mixed in steps before; ε is then
        infinite for good.
        """
        if self._waiting is not None and not self._waiting.dropped():
            raise InputError(
                "step", "the gradient of backward() not yet used", "optimizer.step(), or zero_grad"
            )
        self._release()
        self._ours = True
        try:
            self.optimizer.step()
        finally:
            self._ours, self._waiting = False, None
            self.optimizer.zero_grad(set_to_none=True)
        self._step_scheduler()
        self._look_again()

    def backward(self) -> None:
        """The first half of ``step``, for a loop of one's own; in place of ``loss.backward()``.

            while not training.finished:
                optimizer.zero_grad()
                training.backward()  # draws the batch; leaves the private gradient in .grad
                optimizer.step()

        The gradient is released, and in ε, whether it is used or not. One ``optimizer.step()``
        may follow, with exactly what this left in ``.grad``; the scheduler, if the training has
        one, is stepped with it. Raises InputError for a gradient that still stands in ``.grad``.
        """
        for group in self.optimizer.param_groups:
            if any(p.grad is not None and bool(p.grad.any()) for p in group["params"]):
                raise InputError("backward", "a gradient in .grad", "optimizer.zero_grad() before")
        self._release()

    def _release(self) -> None:
        """The next step's noisy gradient, drawn, counted and put into ``.grad``, alone."""
        if self.finished:
            raise InputError(
                "step", self.steps + 1, f"at most {self.planned_steps}, which the noise is set for"
            )
        self._check_alone()
        if self._modes[0][1] and not self.model.training:
            for module, mode in self._modes:
                module.training = mode
        try:
            noisy = self._source.noisy_sum(
                self.steps,
                clip_norm=self.clip_norm,
                noise_multiplier=self._clip_norm.sum_noise,
            )
        except Voided as problem:
            self._void = str(problem)
            raise
        except RankFailed:
            self._steps += 1  # other ranks may have the sum, in their models
            raise
        following = self._clip_norm.after(noisy, self.steps)
        self._steps += 1  # released from here on, whatever becomes of it
        self._clip_norm.value, self._used = following, noisy.engine
        gradient = self._source.plan.mean(noisy.gradient.values())
        self._waiting = ReleasedGradient(self.optimizer, self._parameters.values(), gradient)

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

    def bound(self, delta: Number | None = None) -> EpsilonBound:
        """The same with the proof that gave it, the one whose ε is smallest, and all others' ε.

        ``method``: ``pld`` (privacy loss distribution), ``gaussian`` (every step takes all records:
        exact), or ``rdp``, also where there are more steps than a loss distribution can hold;
        none, and ε infinite, where the training is ``void``.
        """
        return self._bound(self.steps, delta)

    def planned_epsilon(self, delta: Number | None = None) -> float:
        """ε that all planned steps will have spent, at the planned δ or another one."""
        return self._bound(self.planned_steps, delta).epsilon

    def _bound(self, steps: int, delta: Number | None) -> EpsilonBound:
        if self.void is not None:
            return NO_BOUND
        at = checks.delta(self.delta if delta is None else delta)
        return compose_epsilon(
            {self._source.plan.spent(steps): 1}, checks.ADD_REMOVE, checks.RECORD, at
        )

    def statement(self) -> str:
        """The guarantee so far, and whose proof it is, in one line."""
        bound = self.bound()
        if self.void is not None:
            return f"no guarantee after {self.steps} of {self.planned_steps} steps: {self.void}"
        bands = f" in {self.bands} bands" if self.bands > 1 else ""
        return (
            f"ε = {bound.epsilon:.4g} at δ = {self.delta:g} for a record (add/remove), after "
            f"{self.steps} of {self.planned_steps} steps of Poisson-sampled Gaussian noise{bands} "
            f"(σ = {self.noise_multiplier:.4g}, rate {self.sample_rate:.4g}, clip norm "
            f"{self._clip_norm}); accountant: {bound.accountant}; "
            f"noise keys from: {self._seed.source}"
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on but data and seed; ``torch.save`` takes it."""
        if self._waiting is not None and not self._waiting.dropped():
            raise InputError("state", "one between backward() and its step", "optimizer.step()")
        return {
            **self._clip_norm.state(),
            **self._source.banded.state(secret=self._seed.private),
            "plan": self._plan(),
            "steps": self.steps,
            "void": self.void,
            "model": {n: t.detach().clone() for n, t in self.model.state_dict().items()},
            # torch's own are live: they would go on with the training.
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "scheduler": copy.deepcopy(self.scheduler and self.scheduler.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state``, on a training of the same plan that has taken no step yet.

        Without ``seed`` the steps to come draw fresh noise, and take back none from before. Going
        on twice from one state releases two continuations: this one's ε covers no other.
        """
        if self.steps:
            raise InputError("state", f"a training at step {self.steps}", "one at its beginning")
        if state["plan"] != self._plan():
            raise InputError("state", state["plan"], f"the state of {self._plan()}")
        before = self.state_dict()
        try:
            self._load(state)
        except (RuntimeError, ValueError, KeyError, TypeError) as problem:
            self._load(before)  # all of it or nothing
            raise InputError("state", str(problem), "one of this model and optimizer") from None
        self._steps, self._void = state["steps"], state.get("void")

    def _load(self, state: dict[str, Any]) -> None:
        self._clip_norm.load(state)
        self._source.banded.load(state)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if self.scheduler is not None:
            self.scheduler.load_state_dict(copy.deepcopy(state["scheduler"]))

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            "training",
            "a copy or a pickle of it",
            "state_dict(): its noise keys may not be in two places",
        )

    def close(self) -> None:
        """Give the optimizer back: its own ``step`` works again, and no ε covers that."""
        for hook in self._hooks:
            hook.remove()
        HELD.discard(self.optimizer)
        self._planned_steps = self._steps

    def _check_alone(self) -> None:
        """No other process steps with these noise keys, and the parameters are those planned."""
        if self._seed.private and os.getpid() != self._process:
            raise InputError(
                "training",
                "a fork of the process that planned it",
                "make_private in each process: both would use the same noise on other batches",
            )
        trained = [(n, id(p)) for n, p in self.model.named_parameters() if p.requires_grad]
        if trained != [(n, id(p)) for n, p in self._parameters.items()]:
            raise InputError(
                "model",
                "other parameters with gradients than when training was planned",
                f"these: {', '.join(self._parameters)}",
            )

    def _look_again(self) -> None:
        """After the last step, the gate once more, with the engine of that step."""
        if not self.finished:
            return
        try:
            self._source.look_again(self._used)
        except Voided as problem:
            self._void = str(problem)
            raise

    def _plan(self) -> dict[str, Any]:
        """What two trainings must share for one to go on from the other's state."""
        reproducible = not self._seed.private
        fingerprint = self._seed.derive_bytes("state identity", size=8).hex()
        return {
            **self._clip_norm.plan(),
            **self._source.banded.plan(),
            "records": self._source.records.count,
            "sample_rate": self.sample_rate,
            "steps": self.planned_steps,
            "noise_multiplier": self.noise_multiplier,
            "delta": self.delta,
            "optimizer": type(self.optimizer).__name__,
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "seed": fingerprint if reproducible else None,  # a hash: states lie on disks
        }

    def _refuse_other_steps(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._ours:
            return
        if self._waiting is None:
            raise InputError(
                "optimizer.step()",
                "a call of one's own",
                "PrivateTraining.step(), whose gradient has noise, or its backward() before; "
                "close() gives the optimizer back",
            )
        if any(part is not None for part in (*args[1:], *kwargs.values())):  # args[0] is itself
            raise InputError("optimizer.step()", "a closure", "none: it would change the gradient")
        self._waiting.check()

    def _after_own_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._ours:
            self._waiting = None
            self._step_scheduler()
            self._look_again()

    def _step_scheduler(self) -> None:
        if self.scheduler is not None and self.steps % self._scheduler_period == 0:
            self.scheduler.step()
