"""Per-sample gradients by ``torch.func``: the reference every engine is held to.

Each record's gradient is computed by a function that sees this record alone (``vmap(grad(…))``),
so no engine can be more private or more exact than it, only faster and smaller.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from repro.checks import check_count
from repro.errors import InputError
from repro.privacy.batch import LossFunction
from repro.privacy.holding import call_holding
from repro.privacy.validation import (
    FrozenBuffers,
    check_batch,
    check_loss,
    records_are_taken,
    trainable_parameters,
)


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
    Raises InputError for a model with state shared by records (BatchNorm in training mode, a
    buffer written in the forward pass), a loss that is not per record, a parameter the loss does
    not depend on, shapes or devices that do not fit, and records that model or loss do not take.
    """
    parameters = trainable_parameters(model)
    check_loss(loss_fn)
    views = check_count("views", views)
    check_batch(inputs, targets, parameters, views)
    if chunk_size is not None:
        chunk_size = check_count("chunk_size", chunk_size)
    if inputs.shape[0] == 0:
        return {name: p.new_zeros((0, *p.shape)) for name, p in parameters.items()}
    size = chunk_size or len(inputs)
    with records_are_taken():
        record = inputs[0] if views > 1 else inputs[:1]
        _check_every_parameter_used(model, loss_fn, record, targets[0])
        chunks = [
            vmapped_gradients(model, loss_fn, x, y, views)
            for x, y in zip(inputs.split(size), targets.split(size), strict=True)
        ]
    if len(chunks) == 1:
        return chunks[0]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in parameters}


def vmapped_gradients(
    model: nn.Module, loss_fn: LossFunction, inputs: Tensor, targets: Tensor, views: int
) -> dict[str, Tensor]:
    """The same without checks, for B ≥ 1 records at once."""
    values = {name: p.detach() for name, p in trainable_parameters(model).items()}
    with FrozenBuffers(model) as buffers, warnings.catch_warnings():
        # Of a layer (LSTM, say) that has no vectorised rule and runs record by record: correct all
        # the same, and nothing a caller could change at every step.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        one = grad(_record_loss(model, loss_fn, buffers, views))
        gradients = vmap(one, in_dims=(None, 0, 0), randomness="different")
        return gradients(values, inputs if views > 1 else inputs.unsqueeze(1), targets)


def _record_loss(
    model: nn.Module, loss_fn: LossFunction, buffers: FrozenBuffers, views: int
) -> Callable[[Mapping[str, Tensor], Tensor, Tensor], Tensor]:
    """(parameters, one record's views (views, …), target) -> its loss, a pure function.

    Parameters that are not given, and all buffers, are the copies that ``buffers`` holds. The loss
    is computed while the model holds these parameters, so a term of it that reads them from the
    model (a penalty) is differentiated like the rest.
    """

    def loss(values: Mapping[str, Tensor], record: Tensor, target: Tensor) -> Tensor:
        return call_holding(
            model,
            {**buffers.copies, **values},
            lambda: losses_of_record(loss_fn, model(record), target, views),
        )

    return loss


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


def _check_every_parameter_used(
    model: nn.Module, loss_fn: LossFunction, record: Tensor, target: Tensor
) -> None:
    """One record, ordinary autograd: a parameter without a gradient is a mistake to report."""
    parameters = {
        name: p.detach().requires_grad_() for name, p in trainable_parameters(model).items()
    }
    with torch.enable_grad(), FrozenBuffers(model) as buffers:
        loss = _record_loss(model, loss_fn, buffers, len(record))(parameters, record, target)
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
