"""The reference engine: hold the per-sample gradients of a chunk, then clip and sum them."""

from __future__ import annotations

from torch import nn

from kernels.api import clipped_sum
from repro.privacy.batch import Batch
from repro.privacy.engines.base import ClippedSum
from repro.privacy.per_sample import vmapped_gradients
from repro.privacy.precision import full_precision


class Functional:
    """``torch.func`` per-sample gradients of any model, ``default_chunk`` records at a time.

    On CUDA the fused kernel's two passes clip and sum them; elsewhere PyTorch does.
    """

    name = "vmap"
    default_chunk = 8

    def reason_against(self, model: nn.Module) -> str | None:
        return None

    def clipped_sum(self, batch: Batch) -> ClippedSum:
        gradients = vmapped_gradients(
            batch.model, batch.loss_fn, batch.inputs, batch.targets, batch.views
        )
        rows = [g.reshape(len(g), g.shape[1:].numel()) for g in gradients.values()]
        with full_precision(rows[0].device):
            total, report = clipped_sum(rows, batch.clipping)
        return ClippedSum(total, report.norms, report.non_finite, report.clipped).finite()
