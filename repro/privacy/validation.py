"""What can be trained with per-sample gradients, and what is refused before anything happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from repro.checks import check_callable, check_kind
from repro.errors import InputError

#: What a model or a loss raises for records that it does not take.
FROM_RECORDS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that get gradients, in ``named_parameters`` order; shared ones appear once.

    This order, each parameter flattened in C order, is the flat parameter index noise is
    counted by. Raises InputError where the model cannot have per-sample gradients at all, and for
    hooks on parameters, which no engine calls.
    """
    check_layers(model)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError("model", type(model).__name__, "at least one parameter with gradients")
    for name, parameter in parameters.items():
        if not parameter.is_floating_point():
            raise InputError(f"parameter {name}", parameter.dtype, "a real floating-point type")
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise InputError(
                f"parameter {name}",
                "a hook on its gradient",
                "none (remove it): records' gradients are taken beside it and it would be "
                "dropped; optimizer.register_step_pre_hook sees the gradient with its noise",
            )
    devices = {p.device for p in model.parameters()}
    if len(devices) > 1:
        raise InputError("model", sorted(map(str, devices)), "all parameters on one device")
    return parameters


def check_model(model: object) -> None:
    check_kind("model", model, nn.Module, "a torch.nn.Module")


def check_loss(loss_fn: object) -> None:
    check_callable("loss_fn", loss_fn, "a function (outputs, targets) -> one loss per record, (B,)")


def check_layers(model: nn.Module) -> None:
    """Refuse layers whose output for one record depends on the others, or on earlier batches;
    and those that cannot be called with other parameters than their own."""
    check_model(model)
    for name, layer in model.named_modules():
        label = f"layer {name or '(the model itself)'}"
        if isinstance(layer, nn.parallel.DistributedDataParallel):
            raise InputError(
                label,
                "DistributedDataParallel, which adds up gradients before anybody can clip them",
                "the model itself (its .module), and make_private(..., process_group=...)",
            )
        if isinstance(layer, (torch.jit.ScriptModule, nn.DataParallel)):
            expected = "the model itself, neither scripted nor wrapped for several devices"
            raise InputError(label, type(layer).__name__, expected)
        if isinstance(layer, _BatchNorm) and uses_batch_statistics(layer):
            raise InputError(
                label,
                type(layer).__name__,
                "no batch statistics, which mix records: use nn.GroupNorm, or freeze them "
                "(the layer in eval mode, with running statistics)",
            )
        if isinstance(layer, _InstanceNorm) and layer.track_running_stats and layer.training:
            raise InputError(
                label,
                f"{type(layer).__name__} with running statistics",
                "track_running_stats=False, since running statistics are shared by records",
            )


def uses_batch_statistics(layer: _BatchNorm) -> bool:
    """Whether a BatchNorm's output for a record depends on the records beside it."""
    return layer.training or layer.running_mean is None or layer.running_var is None


def check_rows(name: str, value: object) -> None:
    """One dense tensor with a row for each record; a caller may not have a type checker."""
    if not isinstance(value, Tensor) or value.ndim < 1:
        shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(name, shown, "one tensor with a leading dimension that counts records")
    if value.layout != torch.strided:
        raise InputError(name, value.layout, "a dense tensor: its to_dense()")


def check_batch(
    inputs: Tensor, targets: Tensor, parameters: Mapping[str, Tensor], views: int = 1
) -> None:
    """Refuse shapes and devices that do not fit; ``inputs`` is (B, views, …) if views > 1."""
    check_rows("inputs", inputs)
    check_rows("targets", targets)
    if inputs.shape[0] != targets.shape[0]:
        raise InputError("targets", f"{targets.shape[0]} records", f"{inputs.shape[0]}, as inputs")
    if views > 1 and (inputs.ndim < 2 or inputs.shape[1] != views):
        raise InputError("inputs", tuple(inputs.shape), f"shape (B, {views}, …): {views} views")
    device = next(iter(parameters.values())).device
    for name, tensor in [("inputs", inputs), ("targets", targets)]:
        if tensor.device != device:
            raise InputError(name, str(tensor.device), f"the model's device, {device}")


class FrozenBuffers:
    """A model's state during one pass, which no forward pass may write to: it would carry
    records, without noise, into other records' outputs and into the trained model.

    ``copies``, of buffers and frozen parameters, take such writes in the model's place; trained
    parameters are put back as they were. Contents are compared, since a write through ``.data``
    leaves no other trace. As a context, it checks at the end.
    """

    def __init__(self, model: nn.Module) -> None:
        # Lazy parameters have no contents yet; their first pass makes them, by chance alone.
        parameters = {name: p for name, p in model.named_parameters() if not is_lazy(p)}
        frozen = {name: p for name, p in parameters.items() if not p.requires_grad}
        self._held: dict[str, Tensor] = {**frozen, **dict(model.named_buffers())}
        self.copies = {name: held.detach().clone() for name, held in self._held.items()}
        self._versions = {name: copy._version for name, copy in self.copies.items()}
        self._trained = {
            name: (p.detach(), p.detach().clone())
            for name, p in parameters.items()
            if p.requires_grad
        }
        self._buffers = {name for name in self._held if name not in frozen}

    def __enter__(self) -> FrozenBuffers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        if kind is None:
            self.check()
        else:
            self._put_back()

    def check(self) -> None:
        """Raise InputError that names what has been written to."""
        for name, copy in self.copies.items():
            if copy._version != self._versions[name] or not same_contents(copy, self._held[name]):
                _refuse_write(name, "buffer" if name in self._buffers else "frozen parameter")
        for name in self._put_back():
            _refuse_write(name, "parameter")

    def _put_back(self) -> list[str]:
        """The trained parameters that have been written to, as they were before."""
        changed = [name for name, pair in self._trained.items() if not same_contents(*pair)]
        for name in changed:
            parameter, before = self._trained[name]
            parameter.copy_(before)
        return changed


def same_contents(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one kind hold the same numbers; NaN is the same as NaN."""
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != other.layout:
        return False
    if one.layout != torch.strided:  # no comparison in torch
        return True
    return torch.equal(one, other) or bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )


def _refuse_write(name: str, what: str) -> None:
    raise InputError(
        f"layer {name.rpartition('.')[0] or '(the model itself)'}",
        f"a forward pass that writes to its {what} {name!r}",
        "no state shared by records: remove it or put the layer in eval mode",
    )


@contextmanager
def records_are_taken() -> Iterator[None]:
    """What a model or a loss raises over records inside, as one line."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError):  # smaller chunks mend the second
        raise
    except FROM_RECORDS as problem:
        raise InputError(
            "inputs and targets",
            f"records that model or loss does not take: {said(problem)}",
            "of every record what both are made for (class indices, if loss_fn wants those, are "
            "int64 of shape (B,)); nothing of these is released",
        ) from problem


def said(problem: Exception) -> str:
    """What went wrong elsewhere, in one line, to be quoted in an ``InputError``."""
    text = str(problem).strip().partition("\n")[0]
    return text if isinstance(problem, InputError) else f"{type(problem).__name__}: {text[:200]}"


def flat_dtype(parameters: Mapping[str, Tensor]) -> torch.dtype:
    """Type a clipped sum is accumulated in: float32, or float64 for float64 parameters."""
    dtype = torch.float32
    for parameter in parameters.values():
        dtype = torch.promote_types(dtype, parameter.dtype)
    return dtype
