"""Per-sample gradients by ``torch.func``: the reference every engine is held to.

Each record's gradient is computed by a function that sees this record alone
(``vmap(grad(functional_call))``), so no engine can be more private or more exact than it,
only faster and smaller.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from repro.errors import InputError
from repro.privacy.validation import (
    FrozenBuffers,
    check_batch,
    check_count,
    trainable_parameters,
)

LossFunction = Callable[[Tensor, Tensor], Tensor]


def per_sample_gradients(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    chunk_size: int | None = None,
    views: int = 1,
) -> dict[str, Tensor]:
    """The gradient of every record's loss, for every trainable parameter.

    model: any module whose forward pass keeps records apart: (b, …) -> (b, …).
    loss_fn: (outputs, targets) -> one loss per record, shape (b,), e.g. cross-entropy with
        ``reduction="none"``; it is only ever called with the views of one record.
    inputs: (B, …), or (B, views, …) when ``views`` > 1: the record's loss is then the mean over
        its views (augmentation multiplicity, De et al. 2022, arXiv 2204.13650, section 3.2).
    targets: (B, …).
    chunk_size: records differentiated at once; changes memory and speed, not the result.

    Returns name -> (B, *parameter.shape), in ``named_parameters`` order, a shared parameter
    once with the sum over its uses. B may be 0. The model is left as it was, its ``.grad`` too.
    Raises InputError for a model with state shared by records (BatchNorm, a buffer written in
    the forward pass), a loss that is not per record, a parameter the loss does not depend on,
    and shapes or devices that do not fit.
    """
    parameters = trainable_parameters(model)
    check_count("views", views)
    check_batch(inputs, targets, parameters, views)
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
    if inputs.shape[0] == 0:
        return {name: p.new_zeros((0, *p.shape)) for name, p in parameters.items()}
    if views == 1:
        inputs = inputs.unsqueeze(1)
    _check_every_parameter_used(model, loss_fn, inputs[0], targets[0])
    detached = {name: p.detach() for name, p in parameters.items()}
    buffers = FrozenBuffers(model)

    def record_loss(values: dict[str, Tensor], record: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(model, (values, buffers.copies), (record,))
        return losses_of_record(loss_fn, outputs, target, views)

    chunks = [
        vmap(grad(record_loss), in_dims=(None, 0, 0), randomness="different")(detached, x, y)
        for x, y in zip(*_split(chunk_size, inputs, targets), strict=True)
    ]
    buffers.check()
    if len(chunks) == 1:
        return chunks[0]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in detached}


def losses_of_record(loss_fn: LossFunction, outputs: Tensor, target: Tensor, views: int) -> Tensor:
    """Mean loss over the views of one record: outputs (views, …), target (…) -> scalar."""
    losses = loss_fn(outputs, target.unsqueeze(0).expand(views, *target.shape))
    shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
    if shape != (views,):
        raise InputError(
            "loss_fn",
            f"a result of shape {shape} for {views} outputs",
            "one loss per record, shape (B,), not a mean over the batch: use reduction='none'",
        )
    return losses.mean()


def losses_of_records(
    loss_fn: LossFunction, outputs: Tensor, targets: Tensor, views: int
) -> Tensor:
    """The same for a batch: outputs (B · views, …), targets (B, …) -> (B,).

    ``vmap`` keeps the records apart even for a loss that would mix them.
    """
    grouped = outputs.unflatten(0, (targets.shape[0], views))
    return vmap(
        lambda output, target: losses_of_record(loss_fn, output, target, views),
        randomness="different",
    )(grouped, targets)


def _split(chunk_size: int | None, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return [tensor.split(chunk_size or max(len(tensor), 1)) for tensor in tensors]


def _check_every_parameter_used(
    model: nn.Module, loss_fn: LossFunction, record: Tensor, target: Tensor
) -> None:
    """One record, ordinary autograd: a parameter without a gradient is a mistake to report."""
    parameters = {
        name: p.detach().requires_grad_() for name, p in trainable_parameters(model).items()
    }
    buffers = FrozenBuffers(model)
    with torch.enable_grad():
        outputs = functional_call(model, (parameters, buffers.copies), (record,))
        buffers.check()
        loss = losses_of_record(loss_fn, outputs, target, record.shape[0])
        gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    unused = [n for n, g in zip(parameters, gradients, strict=True) if g is None]
    if unused:
        refuse_unused(unused[0])


def refuse_unused(name: str) -> None:
    raise InputError(
        f"parameter {name}",
        "no gradient",
        "the loss to depend on it; freeze it with requires_grad_(False) if it is not trained",
    )
