"""The clipped sums of several models at once, each of its own records.

Only the gradients are shared work: nested ``vmap`` over models and records. Every model's
records are then clipped and summed as the reference engine does, and ``Stacked`` hands the sum
to the step that adds the noise. Memory is models × ``RECORDS`` × parameters.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from kernels.api import clipped_sum
from repro.privacy.batch import Batch, LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.engines.base import ClippedSum, Unsupported
from repro.privacy.engines.stacking import padded, stacked_parameters
from repro.privacy.per_sample import RecordLoss
from repro.privacy.precision import full_precision
from repro.privacy.validation import FrozenBuffers, flat_dtype, trainable_parameters

RECORDS = 8  # of each model, differentiated at once


@dataclass
class Stacked:
    """An engine for one step of one model, whose sum has been made together with others'."""

    summed: ClippedSum
    name: str = "stacked"
    default_chunk: int = sys.maxsize  # the sum is of the whole batch

    def reason_against(self, model: nn.Module) -> str | None:
        return None

    def clipped_sum(self, batch: Batch) -> ClippedSum:
        if batch.views != 1:
            raise Unsupported("views", batch.views, "1 where models are stacked")
        if len(batch) != self.summed.records:
            raise ValueError(f"a sum of {self.summed.records} records for {len(batch)}")
        return self.summed


def stacked_sums(
    models: Sequence[nn.Module],
    loss_fn: LossFunction,
    batches: Sequence[tuple[Tensor, Tensor]],
    clipping: Clipping,
) -> list[Stacked]:
    """Each model's clipped sum over its own batch.

    models: of one architecture, without buffers and with nothing frozen, as in
        ``per_sample_gradients`` otherwise.
    batches: inputs (B, …) and targets (B, …), one a model; sizes may differ and be 0.
    """
    stacked = stacked_parameters(models)
    record_loss = RecordLoss(models[0], loss_fn, FrozenBuffers(models[0]))
    gradients_of = vmap(vmap(grad(record_loss), in_dims=(None, 0, 0)))
    sums = [_nothing(trainable_parameters(model)) for model in models]
    longest = max(len(inputs) for inputs, _ in batches)
    for start in range(0, longest, RECORDS):
        part = [(x[start : start + RECORDS], y[start : start + RECORDS]) for x, y in batches]
        inputs = padded([x for x, _ in part]).unsqueeze(2)
        gradients = gradients_of(stacked, inputs, padded([y for _, y in part]))
        for row, (own_inputs, _) in enumerate(part):
            if count := len(own_inputs):  # what was filled up is left out here
                own = [g[row, :count].flatten(1) for g in gradients.values()]
                sums[row] = _added(sums[row], own, clipping)
    return [Stacked(summed.finite()) for summed in sums]


def _nothing(parameters: dict[str, nn.Parameter]) -> ClippedSum:
    size = sum(p.numel() for p in parameters.values())
    device, dtype = next(iter(parameters.values())).device, flat_dtype(parameters)
    total = torch.zeros(size, dtype=dtype, device=device)
    return ClippedSum(total, torch.zeros(0, dtype=dtype, device=device), 0, 0)


def _added(before: ClippedSum, rows: list[Tensor], clipping: Clipping) -> ClippedSum:
    with full_precision(rows[0].device):
        total, report = clipped_sum(rows, clipping)
    return ClippedSum(
        before.total + total,
        torch.cat([before.norms, report.norms]),
        before.non_finite + report.non_finite,
        before.clipped + report.clipped,
    )
