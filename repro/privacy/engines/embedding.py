"""Embeddings: a record's gradient has one row per distinct index, so it is rarely formed.

Ghost norm: ‖g_i‖² = Σ_{t,u} [index_t = index_u] (δ_t · δ_u) (Li et al. 2022, arXiv 2110.05679).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repro.privacy.engines.layers import Call, Contribution, Deferred, GhostNorms, Kept, LayerRule


class EmbeddingRule(LayerRule):
    def reason_against(self, layer: nn.Embedding) -> str | None:
        if layer.max_norm is not None:
            return "max_norm, which rewrites the weight in the forward pass"
        if layer.scale_grad_by_freq:
            return "scale_grad_by_freq, which counts indices over the whole batch"
        return None

    def weight(self, call: Call, kept: bool) -> Contribution:
        layer, x, g = call.layer, call.x, call.g
        if layer.padding_idx is not None:  # this row is defined to have no gradient
            g = g.masked_fill((x == layer.padding_idx).unsqueeze(-1), 0)
        indices = x.reshape(call.records, -1)
        gs = g.reshape(call.records, -1, g.shape[-1])
        if kept:
            rows = gs.new_zeros((call.records, *layer.weight.shape))
            rows.scatter_add_(1, indices.unsqueeze(-1).expand_as(gs), gs)
            return Kept.of(rows)
        same = indices.unsqueeze(1) == indices.unsqueeze(2)
        grams = gs @ gs.mT
        lengths = grams.diagonal(dim1=1, dim2=2).sqrt()
        spread = torch.where(same, lengths.unsqueeze(1) * lengths.unsqueeze(2), 0).sum(dim=(1, 2))
        norms = GhostNorms(torch.where(same, grams, 0).sum(dim=(1, 2)), spread)
        size = layer.weight.shape

        def scatter(x: Tensor, g: Tensor) -> Tensor:
            return g.new_zeros(size).index_add_(0, x.flatten(), g.reshape(-1, size[1]))

        return Deferred(norms, x, g, scatter)
