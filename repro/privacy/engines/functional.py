"""The reference engine: hold the per-sample gradients of a chunk, then clip and sum them."""

from __future__ import annotations

from torch import Tensor, nn

from kernels.reference import clipped_sum
from repro.privacy.clipping import Clipping
from repro.privacy.engines.base import ClippedSum
from repro.privacy.per_sample import LossFunction, per_sample_gradients


class Functional:
    """``torch.func`` per-sample gradients of any model, ``default_chunk`` records at a time."""

    name = "vmap"
    default_chunk = 8

    def reason_against(self, model: nn.Module) -> str | None:
        return None

    def clipped_sum(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        inputs: Tensor,
        targets: Tensor,
        clipping: Clipping,
        views: int,
    ) -> ClippedSum:
        gradients = per_sample_gradients(model, loss_fn, inputs, targets, views=views)
        rows = [g.reshape(len(g), g.shape[1:].numel()) for g in gradients.values()]
        total, report = clipped_sum(rows, clipping)
        return ClippedSum(total, report.records, report.non_finite, report.clipped)
