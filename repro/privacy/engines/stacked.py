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
from torch.func import functional_call, grad, vmap

from kernels.reference import clipped_sum
from repro.privacy.clipping import Clipping
from repro.privacy.engines.base import ClippedSum, Unsupported
from repro.privacy.per_sample import LossFunction, losses_of_record
from repro.privacy.validation import flat_dtype, trainable_parameters

RECORDS = 8  # of each model, differentiated at once
Batch = tuple[Tensor, Tensor]  # inputs (B, …), targets (B, …)


@dataclass
class Stacked:
    """An engine for one step of one model, whose sum has been made together with others'."""

    summed: ClippedSum
    name: str = "stacked"
    default_chunk: int = sys.maxsize  # the sum is of the whole batch

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
        if views != 1:
            raise Unsupported("views", views, "1 where models are stacked")
        if len(inputs) != self.summed.records:
            raise ValueError(f"a sum of {self.summed.records} records for {len(inputs)}")
        return self.summed


def stacked_sums(
    models: Sequence[nn.Module],
    loss_fn: LossFunction,
    batches: Sequence[Batch],
    clipping: Clipping,
) -> list[Stacked]:
    """Each model's clipped sum over its own batch.

    models: of one architecture, without buffers, as in ``per_sample_gradients`` otherwise.
    batches: one a model; sizes may differ and be 0.
    """
    parameters = [trainable_parameters(model) for model in models]
    stacked = {
        name: torch.stack([own[name].detach() for own in parameters]) for name in parameters[0]
    }

    def record_loss(values: dict[str, Tensor], record: Tensor, target: Tensor) -> Tensor:
        outputs = functional_call(models[0], values, (record.unsqueeze(0),))
        return losses_of_record(loss_fn, outputs, target, 1)

    gradients_of = vmap(vmap(grad(record_loss), in_dims=(None, 0, 0)))
    sums = [_nothing(own) for own in parameters]
    longest = max(len(inputs) for inputs, _ in batches)
    for start in range(0, longest, RECORDS):
        part = [(x[start : start + RECORDS], y[start : start + RECORDS]) for x, y in batches]
        gradients = gradients_of(
            stacked, _padded([x for x, _ in part]), _padded([y for _, y in part])
        )
        for row, (inputs, _) in enumerate(part):
            if count := len(inputs):  # what was filled up is left out here
                own = [g[row, :count].flatten(1) for g in gradients.values()]
                sums[row] = _added(sums[row], own, clipping)
    return [Stacked(summed) for summed in sums]


def _nothing(parameters: dict[str, nn.Parameter]) -> ClippedSum:
    size = sum(p.numel() for p in parameters.values())
    device = next(iter(parameters.values())).device
    return ClippedSum(torch.zeros(size, dtype=flat_dtype(parameters), device=device), 0, 0, 0)


def _added(before: ClippedSum, rows: list[Tensor], clipping: Clipping) -> ClippedSum:
    total, report = clipped_sum(rows, clipping)
    return ClippedSum(
        before.total + total,
        before.records + report.records,
        before.non_finite + report.non_finite,
        before.clipped + report.clipped,
    )


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """(B_h, …) of several models as one (H, longest, …), filled up with zeros."""
    return nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
