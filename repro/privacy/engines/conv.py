"""Convolutions: per-sample weight gradients in several ways, or ghost norms.

Ghost norms (``conv_ghost``) pay where the map is small: their cost grows with its area squared.
Elsewhere the gradients are formed and kept, which makes the later weighted sum almost free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.privacy.engines.conv_ghost import PixelGrid, ghost_norms
from repro.privacy.engines.layers import Call, Contribution, Deferred, Kept, LayerRule, by_record
from repro.privacy.engines.linear import MACS_PER_FLOAT
from repro.privacy.precision import widened

# Measured on two CPU cores: one record's weight gradient at a time against the whole batch's in
# float32; in bfloat16 a product takes half as long (AVX-512).
_ONE_BY_ONE = 1.35
# Below this many weights the records fit one grouped convolution; above, its blocks are slow.
_GROUPED_WEIGHTS = 10_000


class ConvRule(LayerRule):
    """Conv1d, Conv2d, Conv3d with zero padding; any stride, dilation and groups."""

    def reason_against(self, layer: Any) -> str | None:
        if layer.padding_mode != "zeros":
            return f"padding_mode {layer.padding_mode!r}"
        if _padding(layer) is None:
            return "padding='same' with an even kernel"
        return None

    def weight(self, call: Call, kept: bool) -> Contribution:
        if kept or not _ghost_is_cheaper(call):
            return _method(call)(call)
        layer = call.layer
        norms = ghost_norms(layer, _padding(layer), call.x, call.g, call.records)
        return Deferred(norms, call.x, call.g, lambda x, g: _weight_gradient(layer, x, g))

    def bias(self, call: Call) -> Tensor:
        return by_record(call.g.flatten(2).sum(dim=2), call.records).sum(dim=1)


def _weight_gradient(
    layer: Any, x: Tensor, g: Tensor, *, weight: Tensor | None = None, groups: int | None = None
) -> Tensor:
    """The ordinary weight gradient, summed over the leading dimension.

    weight, groups: instead of the layer's own.
    """
    return torch.ops.aten.convolution_backward(
        g,
        x,
        _like(layer.weight.detach() if weight is None else weight, g.dtype),
        None,
        layer.stride,
        _padding(layer),
        layer.dilation,
        False,
        [0] * len(layer.kernel_size),
        layer.groups if groups is None else groups,
        [False, True, False],
    )[1]


def _like(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Of the same shape and layout, which is all that a weight's gradient asks of the weight."""
    return weight if weight.dtype == dtype else torch.empty_like(weight, dtype=dtype)


def _method(call: Call) -> Callable[[Call], Kept]:
    """The fastest way to every record's weight gradient."""
    if call.input.is_cuda:
        return _by_unfolding if len(call.layer.kernel_size) == 2 else _one_by_one
    small = call.layer.weight.numel() <= _GROUPED_WEIGHTS
    return _by_grouping if small else _one_by_one


def _one_by_one(call: Call) -> Kept:
    """In bfloat16 where the passes were: what is kept is float32, and norm and sum are of that."""
    layer = call.layer
    xs, gs = (call.input, call.gradient) if call.in_bfloat16 else (call.x, call.g)
    first = _weight_gradient(layer, xs[: call.views], gs[: call.views])
    # The layout of the backend's result, which may be channels-last: copying is then a memcpy.
    rows = torch.empty(call.records, first.numel(), dtype=widened(first).dtype, device=gs.device)
    for row, x, g in zip(rows, xs.chunk(call.records), gs.chunk(call.records), strict=True):
        row.as_strided(first.shape, first.stride()).copy_(_weight_gradient(layer, x, g))
    return Kept(rows, first.shape, first.stride())


def _by_grouping(call: Call) -> Kept:
    """All records in one grouped convolution: record i's channels are group i's.

    With few channels a call costs more than the work it does, so one call for all of them is
    1.3 to 4 times as fast as one a record (DPResNet of width 4 to 16, CPU).
    """
    layer, records = call.layer, call.records
    shape = layer.weight.shape
    weight = layer.weight.detach().repeat(records, *[1] * (len(shape) - 1))
    gradients = _weight_gradient(
        layer,
        _as_channels(call.x, records),
        _as_channels(call.g, records),
        weight=weight,
        groups=records * layer.groups,
    )
    return Kept.of(gradients.view(records, *shape))


def _as_channels(values: Tensor, records: int) -> Tensor:
    """(records · views, C, …) -> (views, records · C, …)."""
    return by_record(values, records).transpose(0, 1).flatten(1, 2).contiguous()


def _by_unfolding(call: Call) -> Kept:
    """All records in one batched matrix product, from unfolded patches."""
    layer, groups = call.layer, call.layer.groups
    patches = F.unfold(
        call.x, layer.kernel_size, layer.dilation, _padding(layer), layer.stride
    )  # (records · views, C_in · k², T)
    inputs = _by_group(patches, call.records, groups)
    outputs = _by_group(call.g.flatten(2), call.records, groups)
    return Kept.of((outputs @ inputs.mT).view(call.records, *layer.weight.shape))


def _by_group(values: Tensor, records: int, groups: int) -> Tensor:
    """(records · views, groups · F, T) -> (records · groups, F, views · T)."""
    split = by_record(values, records).unflatten(2, (groups, -1))  # (B, views, groups, F, T)
    return split.permute(0, 2, 3, 1, 4).flatten(3, 4).flatten(0, 1)


def _macs(call: Call) -> int:
    """Multiply-adds of one record's weight gradient."""
    return call.views * call.gradient.shape[2:].numel() * call.layer.weight.numel()


def _ghost_is_cheaper(call: Call) -> bool:
    """Norms now and one batched weight gradient later, against kept gradients."""
    if len(call.layer.kernel_size) != 2:
        return False
    grid = PixelGrid.of(call.layer, (call.gradient.shape[2], call.gradient.shape[3]))
    ghost = grid.multiply_adds(call.layer, call.views) + _macs(call)
    each = _ONE_BY_ONE / 2 if call.in_bfloat16 else _ONE_BY_ONE
    kept = each * _macs(call) + MACS_PER_FLOAT * call.layer.weight.numel()
    return ghost < kept


def _padding(layer: Any) -> Any:
    """Padding per dimension, or None where it is not the same on both sides."""
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    if layer.padding == "same":
        total = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return None if any(t % 2 for t in total) else [t // 2 for t in total]
    return list(layer.padding)
