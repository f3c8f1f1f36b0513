"""What ``make_private`` refuses, most of it before anything is drawn: optimizers, schedulers,
losses, records that do not fit."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from repro.checks import check_choice, check_kind
from repro.errors import InputError
from repro.privacy.batch import LossFunction
from repro.privacy.gate import check_engine
from repro.privacy.gate.attributes import Attributes
from repro.privacy.gate.probe import modes_kept
from repro.privacy.holding import call_holding
from repro.privacy.per_sample import losses_of_records
from repro.privacy.records import Records
from repro.privacy.several_inputs import Inputs, one_tensor, taking, tensors_of
from repro.privacy.validation import FROM_RECORDS, check_batch, check_loss, said

EVERY = ("epoch", "step")
PROBED = 16  # records that are tried
_CLASSES = "class indices, if it wants those, are int64 of shape (B,): convert in the Dataset"
HELD: WeakSet[Optimizer] = WeakSet()  # optimizers of private trainings that are not closed


def check_optimizer(
    optimizer: Optimizer, model: nn.Module, parameters: dict[str, nn.Parameter]
) -> None:
    name = type(optimizer).__name__
    check_kind("optimizer", optimizer, Optimizer, "a torch.optim optimizer of the model")
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
    check_choice("scheduler_every", every, EVERY)
    if scheduler is None:
        return
    name = type(scheduler).__name__
    check_kind("scheduler", scheduler, LRScheduler, "a torch.optim.lr_scheduler, or None")
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
) -> tuple[nn.Module, str]:
    """Model, loss, data and engine fit: tried on a few records; nothing is kept.

    at_once: records that a pass of the steps will hold.
    Returns the model as it takes one tensor a record (itself, or ``SeveralInputs``), and the
    engine to ask for.
    """
    check_loss(loss_fn)
    reduction = getattr(loss_fn, "reduction", "none")
    if reduction != "none":
        raise InputError("loss_fn", f"reduction={reduction!r}", 'reduction="none": one per record')
    records.refuse_mixing()
    first, targets = records.first(PROBED)
    for part in tensors_of(first):
        check_batch(part, targets, parameters)
    taken, engine = taking(model, first, engine)
    with one_tensor(taken, first) as inputs:
        _try(taken, loss_fn, inputs, targets, first)
        check_engine(taken, loss_fn, inputs, targets, engine=engine, at_once=at_once)
    return taken, engine


def _try(
    model: nn.Module, loss_fn: LossFunction, inputs: Tensor, targets: Tensor, given: Inputs
) -> None:
    """One pass in evaluation mode. The model holds copies of all parameters and buffers
    meanwhile: what its forward pass writes to them is of records, without noise."""
    with modes_kept(model), torch.no_grad(), Attributes(model):
        model.eval()
        if any(is_lazy(p) for p in model.parameters()):
            model(torch.zeros_like(inputs))  # makes them
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        copies = {name: value.detach().clone() for name, value in state.items()}
        outputs = _outputs(model, copies, inputs, given)
        _check_losses(loss_fn, outputs, targets)


def _outputs(model: nn.Module, state: dict[str, Tensor], inputs: Tensor, given: Inputs) -> Any:
    """What the model makes of the records, if it takes them at all."""
    try:
        return call_holding(model, state, lambda: model(inputs))
    except InputError:
        raise
    except FROM_RECORDS as problem:
        types = sorted({str(v.dtype) for v in state.values() if v.is_floating_point()})
        raise InputError(
            "inputs",
            " and ".join(map(_kind, tensors_of(given))),
            f"what the model, of {' and '.join(types)}, takes, not {said(problem)} (convert "
            "records in the Dataset)",
        ) from problem


def _check_losses(loss_fn: LossFunction, outputs: Any, targets: Tensor) -> None:
    """One loss a record, from the batch and from every record apart."""
    count = len(targets)
    try:
        losses: object = loss_fn(outputs, targets)
    except InputError:
        raise
    except FROM_RECORDS as problem:
        raise InputError(
            "targets",
            _kind(targets),
            f"what loss_fn takes beside outputs of {_kind(outputs)}, not {said(problem)} "
            f"({_CLASSES})",
        ) from problem
    if not isinstance(losses, Tensor) or losses.shape != (count,):
        raise InputError(
            "loss_fn",
            f"{_kind(losses)} for {count} records",
            f'a tensor of shape ({count},), one loss per record: reduction="none"',
        )
    if targets.is_floating_point() or targets.dtype == torch.int64:
        return
    try:  # torch has losses that take other integers from a batch, but not from a record
        losses_of_records(loss_fn, outputs, targets, 1)
    except FROM_RECORDS as problem:
        raise InputError(
            "targets",
            _kind(targets),
            f"what loss_fn takes from every record apart, not {said(problem)} ({_CLASSES})",
        ) from problem


def _kind(value: object) -> str:
    """``float32 of shape (16, 5)`` for a tensor, else the type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
