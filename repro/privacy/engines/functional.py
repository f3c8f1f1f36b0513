"""The reference engine: hold the per-sample gradients of a chunk, then clip and sum them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from repro.privacy.batch import Batch
from repro.privacy.clipping import Clipping
from repro.privacy.engines.base import ClippedSum
from repro.privacy.per_sample import vmapped_gradients
from repro.privacy.precision import full_precision
from repro.privacy.row_sum import ClipReport, clipped_sum

RowSum = Callable[[Sequence[Tensor], Clipping], tuple[Tensor, ClipReport]]

# Who clips and sums rows on devices of a type; PyTorch where nobody is named. The fused kernel's
# package stands above this one and enters itself (``repro.kernels.use_on_cuda``).
ROW_SUMS: dict[str, RowSum] = {}


class Functional:
    """``torch.func`` per-sample gradients of any model, ``default_chunk`` records at a time.

    PyTorch clips and sums them, unless ``ROW_SUMS`` names another for the device.
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
            row_sum = ROW_SUMS.get(rows[0].device.type, clipped_sum)
            total, report = row_sum(rows, batch.clipping)
        return ClippedSum(total, report.norms, report.non_finite, report.clipped).finite()
