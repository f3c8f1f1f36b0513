"""A few records to try a model on, and what plain autograd says of each of them alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from repro.privacy.batch import Batch
from repro.privacy.gate.randomness import fixed_randomness
from repro.privacy.holding import call_holding
from repro.privacy.per_sample import losses_of_record, refuse_unused
from repro.privacy.precision import widened
from repro.privacy.validation import FrozenBuffers, trainable_parameters

_LOOKED_AT = 16  # of the records given, at most

_AnyBatch = TypeVar("_AnyBatch", bound=Batch)


def probe_sizes(batch: Batch) -> tuple[int, int]:
    """Two numbers of records that are no other dimension of the inputs, smallest first.

    A layer that takes some other axis of size T for the records can be mistaken for a good one
    at B = T only, so at one of the two at most.
    """
    taken = set(batch.inputs.shape[1:])
    free = (n for n in range(3, 3 + 2 * len(taken) + 2) if not {n, n * batch.views} & taken)
    return next(free), next(free)


@dataclass(frozen=True)
class Probe(Batch):
    """Records to try a model on.

    random: whether a pass may draw random numbers, which are then fixed record by record; for a
        small model that takes as long as the pass itself.
    """

    random: bool = True

    @classmethod
    def of(cls, batch: Batch, random: bool) -> Probe:
        own = {one.name: getattr(batch, one.name) for one in fields(Batch)}
        return cls(**own, random=random)


def probe_of(batch: Batch, count: int) -> Probe:
    """``count`` different finite records: the batch's first, then made-up relatives of these.

    Twins would hide that a model subtracts one record from another.
    """
    inputs, targets = batch.inputs[:_LOOKED_AT], batch.targets[:_LOOKED_AT]
    rows = [i for i in range(len(inputs)) if bool(inputs[i].isfinite().all())]
    if not rows:
        noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
        inputs, rows = noise.to(inputs), list(range(len(inputs)))
    found: list[tuple[Tensor, Tensor]] = []
    candidates = [(inputs[i], targets[i]) for i in rows]
    made = ((_relative(x, n), y) for n in range(count) for x, y in candidates)
    for x, y in (*candidates, *made):
        if len(found) < count and not any(torch.equal(x, other) for other, _ in found):
            found.append((x, y))
    while len(found) < count:  # records that are constant have no relatives
        found.append(candidates[0])
    xs, ys = zip(*found, strict=True)
    probe = Probe.of(batch, random=True)
    return replace(probe, inputs=torch.stack(xs), targets=torch.stack(ys))


def _relative(record: Tensor, number: int) -> Tensor:
    """The same values in other places, so that indices stay valid; never quite the same
    numbers where they may be any."""
    generator = torch.Generator().manual_seed(number)
    order = torch.randperm(record.numel(), generator=generator).to(record.device)
    moved = record.flatten()[order].view(record.shape)
    if record.is_floating_point() and bool((record == record.flatten()[:1]).all()):
        moved = moved + 0.01 * torch.rand(record.shape, generator=generator).to(record)
    return moved


@dataclass(frozen=True)
class Alone:
    """One record by itself under fixed randomness: its outputs, and autograd's gradients."""

    outputs: Any
    gradients: dict[str, Tensor]  # of the trainable parameters, not clipped
    random: bool  # whether the forward pass drew random numbers
    penalised: str | None  # a parameter the loss reads besides the model's outputs
    types: Set[torch.dtype]  # what its forward pass made


class TypesMade(TorchDispatchMode):
    """``seen``: the floating-point types of what operations returned inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen.update(
            value.dtype
            for value in tree_leaves(result)
            if isinstance(value, Tensor) and value.is_floating_point()
        )
        return result


def alone(probe: Probe, record: int) -> Alone:
    """Forward and backward pass of one record with the model's own parameters.

    No transform stands between: what ``loss.backward()`` would put into ``.grad`` is the
    definition that every engine is held to. ``.grad`` itself is not touched.
    """
    parameters = trainable_parameters(probe.model)
    device = next(iter(parameters.values())).device
    x, y = probe.inputs[record], probe.targets[record]
    x = x if probe.views > 1 else x.unsqueeze(0)
    with (
        torch.enable_grad(),
        FrozenBuffers(probe.model) as buffers,
        fixed_randomness((probe.views,), device, needed=probe.random) as randomness,
    ):
        with TypesMade() as types:
            outputs = call_holding(probe.model, buffers.copies, lambda: probe.model(x))
        loss = losses_of_record(probe.loss_fn, outputs, y, probe.views)
        penalised = _penalised(probe, outputs, y, parameters)
        gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    found = {
        name: widened(g.to_dense() if g.is_sparse else g)
        for name, g in zip(parameters, gradients, strict=True)
        if g is not None
    }
    return Alone(detached(outputs), found, randomness.used, penalised, types.seen)


def records_alone(probe: Probe, first: Alone | None = None) -> list[Alone]:
    """Every record of the probe; a parameter that none of them has a gradient for is refused.

    first: what was found for the first one, if it was tried before."""
    found = [first or alone(probe, 0), *(alone(probe, one) for one in range(1, len(probe)))]
    for name in trainable_parameters(probe.model):
        if not any(name in one.gradients for one in found):
            refuse_unused(name)
    return found


def _penalised(
    probe: Batch, outputs: Any, target: Tensor, parameters: dict[str, nn.Parameter]
) -> str | None:
    """The first parameter that the loss reads from the model instead of its outputs."""
    loss = losses_of_record(probe.loss_fn, detached(outputs), target, probe.views)
    if not loss.requires_grad:
        return None
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return next((n for n, g in zip(parameters, gradients, strict=True) if g is not None), None)


def detached(outputs: Any) -> Any:
    """Outputs of any structure, as constants."""
    return tree_map(lambda value: value.detach() if isinstance(value, Tensor) else value, outputs)


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """The model as it trains: in training mode, except for what its user froze.

    A model that is in training mode already stays as it is, with any part of it (a BatchNorm
    whose statistics are to be fixed, say) that was put in evaluation mode; another is put in
    training mode as a whole, and back afterwards.
    """
    if model.training:
        yield
    else:
        with modes_kept(model):
            model.train()
            yield


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Every module is in the mode afterwards (training or evaluation) that it is in now."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def in_double(probe: _AnyBatch) -> _AnyBatch:
    """The same in float64, on a copy of the model."""

    def wide(values: Tensor) -> Tensor:
        return values.double() if values.is_floating_point() else values

    model = copy.deepcopy(probe.model).double()
    return replace(probe, model=model, inputs=wide(probe.inputs), targets=wide(probe.targets))
