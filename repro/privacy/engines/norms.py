"""GroupNorm, LayerNorm and frozen BatchNorm: y = γ x̂ + β, so a record's gradients are Σ δ · x̂
and Σ δ."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.privacy.engines.layers import Call, Contribution, Kept, LayerRule, by_record
from repro.privacy.precision import widened
from repro.privacy.validation import uses_batch_statistics

_FLOATS_AT_ONCE = 1 << 18  # of one map: 1 MiB, so that the input, gradient and product stay cached


class GroupNormRule(LayerRule):
    def saved(self, layer: nn.GroupNorm, output: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and reciprocal deviation (N, groups), which autograd keeps for its own use."""
        node = output.grad_fn
        if type(node).__name__ != "NativeGroupNormBackward0":
            return None
        return node._saved_result1.detach(), node._saved_result2.detach()  # type: ignore

    def weight(self, call: Call, kept: bool) -> Contribution:
        return Kept.of(_channel_sums(_sum_of_products(call), call.records))

    def bias(self, call: Call) -> Tensor:
        return _channel_sums(call.g, call.records)


def _sum_of_products(call: Call) -> Tensor:
    """Σ_t δ_t x̂_t of every channel, (N, C), a few maps at a time."""
    layer, x, g = call.layer, call.x, call.g
    if call.saved is None or x.dtype != call.saved[0].dtype:
        normal = F.group_norm(x, layer.num_groups, eps=layer.eps)
        return _over_positions(g * normal)
    per_channel = [
        s.repeat_interleave(layer.num_channels // layer.num_groups, 1) for s in call.saved
    ]
    mean, rstd = (s.view(len(x), -1, *[1] * (x.ndim - 2)) for s in per_channel)
    chunk = max(1, _FLOATS_AT_ONCE // x[0].numel())
    # Centred before it is multiplied: Σ δ x − mean · Σ δ would lose digits to a large mean.
    sums = [
        _over_positions((xs - means).mul_(gs))
        for xs, gs, means in zip(x.split(chunk), g.split(chunk), mean.split(chunk), strict=True)
    ]
    return torch.cat(sums) * rstd.flatten(1)


class LayerNormRule(LayerRule):
    def weight(self, call: Call, kept: bool) -> Contribution:
        normal = F.layer_norm(call.x, call.layer.normalized_shape, eps=call.layer.eps)
        return Kept.of(self._sums(call, call.g * normal))

    def bias(self, call: Call) -> Tensor:
        return self._sums(call, call.g)

    def _sums(self, call: Call, values: Tensor) -> Tensor:
        return values.reshape(call.records, -1, *call.layer.normalized_shape).sum(dim=1)


class FrozenBatchNormRule(LayerRule):
    """BatchNorm in evaluation mode: fixed statistics, each record on its own."""

    def reason_against(self, layer: Any) -> str | None:
        return "batch statistics" if uses_batch_statistics(layer) else None

    def weight(self, call: Call, kept: bool) -> Contribution:
        mean, variance = widened(call.layer.running_mean), widened(call.layer.running_var)
        normal = F.batch_norm(call.x, mean, variance, eps=call.layer.eps)
        return Kept.of(_channel_sums(call.g * normal, call.records))

    def bias(self, call: Call) -> Tensor:
        return _channel_sums(call.g, call.records)


def _channel_sums(values: Tensor, records: int) -> Tensor:
    """(records · views, C) or (records · views, C, …) -> (records, C)."""
    return by_record(_over_positions(values), records).sum(dim=1)


def _over_positions(values: Tensor) -> Tensor:
    """(N, C) or (N, C, …) -> (N, C)."""
    return values.flatten(2).sum(dim=2) if values.ndim > 2 else values
