"""Linear layers: g_i = Σ_t δ_t x_tᵀ over the record's T positions (T = 1 for plain vectors).

Ghost norm (Goodfellow 2015, arXiv 1510.01799, for T = 1; Li et al. 2022, arXiv 2110.05679,
section 4 for sequences): ‖g_i‖² = Σ_{t,u} (x_t · x_u)(δ_t · δ_u), without forming g_i.
"""

from __future__ import annotations

from torch import Tensor

from repro.privacy.engines.layers import Call, Contribution, Deferred, GhostNorms, Kept, LayerRule


class LinearRule(LayerRule):
    def weight(self, call: Call, kept: bool) -> Contribution:
        xs, gs = _by_position(call.x, call.records), _by_position(call.g, call.records)
        if kept or not _ghost_is_cheaper(xs.shape[1], xs.shape[2], gs.shape[2]):
            return Kept.of(gs.mT @ xs)
        return Deferred(gram_product(xs, gs), call.x, call.g, _weight_gradient)

    def bias(self, call: Call) -> Tensor:
        return _by_position(call.g, call.records).sum(dim=1)


def _by_position(values: Tensor, records: int) -> Tensor:
    """(B · views, …, F) -> (B, T, F)."""
    return values.reshape(records, -1, values.shape[-1])


def gram_product(xs: Tensor, gs: Tensor) -> GhostNorms:
    """Σ_{t,u} (x_t · x_u)(g_t · g_u) for (B, T, I) and (B, T, O)."""
    if xs.shape[1] == 1:
        inputs, outputs = xs.square().sum(dim=2), gs.square().sum(dim=2)
        return GhostNorms.of((inputs * outputs)[:, 0], inputs, outputs)
    inputs, outputs = xs @ xs.mT, gs @ gs.mT
    squared = (inputs * outputs).sum(dim=(1, 2))
    return GhostNorms.of(squared, inputs.diagonal(dim1=1, dim2=2), outputs.diagonal(dim1=1, dim2=2))


def _weight_gradient(x: Tensor, g: Tensor) -> Tensor:
    return g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def _ghost_is_cheaper(positions: int, inputs: int, outputs: int) -> bool:
    """Multiply-adds of the Gram matrices and the later sum, against forming the gradients."""
    ghost = positions**2 * (inputs + outputs) + positions * inputs * outputs
    return ghost < (positions + MACS_PER_FLOAT) * inputs * outputs


# Writing and twice reading one float of a stored per-sample gradient takes as long as about
# this many multiply-adds of a matrix product (12 bytes at 12 GB/s, 100 GMAC/s).
MACS_PER_FLOAT = 100
