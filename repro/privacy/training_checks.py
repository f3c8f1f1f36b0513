"""What ``make_private`` refuses before anything is drawn: optimizers, schedulers, losses."""

from __future__ import annotations

import inspect
from weakref import WeakSet

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from repro.errors import InputError
from repro.privacy.gate import check_engine
from repro.privacy.gate.attributes import Attributes
from repro.privacy.holding import call_holding
from repro.privacy.per_sample import LossFunction
from repro.privacy.records import Records
from repro.privacy.validation import check_batch

EVERY = ("epoch", "step")
PROBED = 16  # records that are tried
HELD: WeakSet[Optimizer] = WeakSet()  # optimizers of private trainings that are not closed


def check_optimizer(
    optimizer: Optimizer, model: nn.Module, parameters: dict[str, nn.Parameter]
) -> None:
    name = type(optimizer).__name__
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InputError("optimizer", name, "one that takes one gradient a step, without a closure")
    if isinstance(optimizer, torch.optim.SparseAdam):
        raise InputError("optimizer", name, "one for dense gradients: noise has no zeros")
    # Adagrad makes its state when it is made itself, and counts from 0.
    if any(float(entry.get("step", 1)) > 0 for entry in optimizer.state.values()):
        raise InputError(
            "optimizer", f"{name} that has taken steps", "a fresh one: its state has no noise"
        )
    if optimizer in HELD:
        raise InputError("optimizer", name, "one that no other private training holds (close it)")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for label, parameter in parameters.items():
        if id(parameter) not in held:
            raise InputError(
                f"parameter {label}",
                f"not in {name}",
                "it in the optimizer, or requires_grad=False: it would be clipped for nothing",
            )
    if held - {id(p) for p in model.parameters()}:
        raise InputError("optimizer", f"{name} with further parameters", "the model's alone")


def check_scheduler(scheduler: LRScheduler | None, every: str, optimizer: Optimizer) -> None:
    if every not in EVERY:
        raise InputError("scheduler_every", every, f"one of {', '.join(EVERY)}")
    if scheduler is None:
        return
    name = type(scheduler).__name__
    if isinstance(scheduler, ReduceLROnPlateau):
        raise InputError(
            "scheduler", name, "one that needs no metric, which would itself have to be private"
        )
    if scheduler.optimizer is not optimizer:
        raise InputError("scheduler", f"{name} of another optimizer", "one of this optimizer")


def check_together(
    model: nn.Module,
    loss_fn: LossFunction,
    records: Records,
    parameters: dict[str, nn.Parameter],
    engine: str,
    at_once: int,
) -> None:
    """Model, loss, data and engine fit: tried on a few records; nothing is kept.

    at_once: records that a pass of the steps will hold.

    The model holds copies of all parameters and buffers meanwhile: what its forward pass writes
    to them is of records, without noise.
    """
    reduction = getattr(loss_fn, "reduction", "none")
    if reduction != "none":
        raise InputError("loss_fn", f"reduction={reduction!r}", 'reduction="none": one per record')
    records.refuse_mixing()
    inputs, targets = records.first(PROBED)
    check_batch(inputs, targets, parameters)
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), Attributes(model):
            model.eval()
            if any(is_lazy(p) for p in model.parameters()):
                model(torch.zeros_like(inputs))  # makes them
            state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            copies = {name: value.detach().clone() for name, value in state.items()}
            losses = loss_fn(call_holding(model, copies, lambda: model(inputs)), targets)
    finally:
        for module, mode in modes.items():
            module.training = mode
    if losses.shape != (len(inputs),):
        raise InputError(
            "loss_fn",
            f"a loss of shape {tuple(losses.shape)} for {len(inputs)} records",
            f'shape ({len(inputs)},), one loss per record: reduction="none"',
        )
    check_engine(model, loss_fn, inputs, targets, engine=engine, at_once=at_once)
