"""Rows of per-sample gradients clipped and summed in plain PyTorch.

What the ``vmap`` engine does on any device, and the reference of the Triton kernel (``kernels/``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from repro.privacy.clipping import Clipping
from repro.shapes import Bool, Float

# Columns summed at once: bounds the copy a bfloat16 or non-contiguous input needs.
_COLUMNS = 1 << 18


@dataclass(frozen=True)
class ClipReport:
    """What clipping did. Computed from records, without noise: for diagnostics, not release."""

    records: int
    non_finite: int  # records that contributed exactly zero
    clipped: int  # finite records whose norm was above the clip norm
    # (B,), L2, before clipping; squares that overflow give Inf
    norms: Tensor = field(default_factory=lambda: torch.zeros(0), compare=False, repr=False)


def squared_norms(rows: Sequence[Float[Tensor, "records _"]]) -> Float[Tensor, "records groups"]:
    """Squared L2 norm of each row of each matrix; float32 accumulation, float64 for float64.

    rows: at least one matrix (B, P_l); any strides; float16, bfloat16, float32 or float64.
    """
    return torch.stack([_squared_norms(matrix) for matrix in rows], dim=1)


def clipped_sum(
    rows: Sequence[Float[Tensor, "records _"]], clipping: Clipping
) -> tuple[Float[Tensor, " params"], ClipReport]:
    """Σ_i factor_i · g_i, flat over all matrices, and the counts.

    Two reads of the gradients (norms, weighted sum); nothing of their size is written, unless
    a record is not finite: its row is then zeroed in a copy, because 0 · NaN is NaN.
    """
    squared = squared_norms(rows)
    factors, finite, clipped = clipping.factors(squared)
    if not bool(finite.all()):
        rows = [torch.where(finite[:, None], matrix, 0) for matrix in rows]
    parts = [_weighted_sum(matrix, factors[:, group]) for group, matrix in enumerate(rows)]
    return torch.cat(parts), report_of(squared, finite, clipped)


def report_of(
    squared: Float[Tensor, "records groups"],
    finite: Bool[Tensor, " records"],
    clipped: Bool[Tensor, " records"],
) -> ClipReport:
    """Counts and norms from what ``Clipping.factors`` was given and gave."""
    norms = squared.sum(dim=1).sqrt()
    return ClipReport(len(finite), int((~finite).sum()), int(clipped.sum()), norms)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _squared_norms(matrix: Tensor) -> Tensor:
    dtype = accumulation_dtype(matrix.dtype)
    total = matrix.new_zeros(matrix.shape[0], dtype=dtype)
    for columns in matrix.split(_COLUMNS, dim=1):
        # Squared before it is added: norms of pieces are exact to rounding, and so is the sum.
        total += torch.linalg.vector_norm(columns, dim=1, dtype=dtype).square_()
    return total


def _weighted_sum(matrix: Tensor, factors: Tensor) -> Tensor:
    if matrix.dtype == factors.dtype:
        return factors @ matrix
    pieces = [factors @ columns.to(factors.dtype) for columns in matrix.split(_COLUMNS, dim=1)]
    return torch.cat(pieces) if pieces else factors.new_zeros(0)
