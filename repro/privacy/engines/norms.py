"""GroupNorm and LayerNorm: y = γ x̂ + β, so a record's gradients are Σ δ · x̂ and Σ δ."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from repro.privacy.engines.layers import Contribution, Kept, by_record


class GroupNormRule:
    def reason_against(self, layer: nn.GroupNorm) -> str | None:
        return None

    def contributions(
        self, layer: nn.GroupNorm, x: Tensor, g: Tensor, records: int, wanted: dict[str, bool]
    ) -> dict[str, Contribution]:
        result: dict[str, Contribution] = {}
        if "weight" in wanted:
            normal = F.group_norm(x, layer.num_groups, eps=layer.eps)
            products = (g * normal).flatten(2).sum(dim=2)
            result["weight"] = Kept(by_record(products, records).sum(dim=1))
        if "bias" in wanted:
            result["bias"] = Kept(by_record(g.flatten(2).sum(dim=2), records).sum(dim=1))
        return result


class LayerNormRule:
    def reason_against(self, layer: nn.LayerNorm) -> str | None:
        return None

    def contributions(
        self, layer: nn.LayerNorm, x: Tensor, g: Tensor, records: int, wanted: dict[str, bool]
    ) -> dict[str, Contribution]:
        result: dict[str, Contribution] = {}
        shape = (records, -1, *layer.normalized_shape)
        if "weight" in wanted:
            normal = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
            result["weight"] = Kept((g * normal).reshape(shape).sum(dim=1))
        if "bias" in wanted:
            result["bias"] = Kept(g.reshape(shape).sum(dim=1))
        return result
