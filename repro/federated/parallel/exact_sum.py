"""A weighted sum that does not depend on the order, or on how it was split over processes.

Floating-point addition is not associative, so the mean of K updates would change in its last
bits with the number of ranks. Here every term n_i·x_i is rounded once to a fixed-point int64
and integers are added, which commutes exactly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repro.errors import InputError
from repro.shapes import Float, Int

RANGE_BITS = 12  # |x| < 4096; an update beyond that has diverged (or its noise is absurd)


class ExactWeightedSum:
    """Σ n_i·x_i in fixed point, for weights with a known total.

    size: coordinates. total_weight: Σ n_i over all that may be added (an integer ≥ 1).
    The resolution is 2^−bits with bits = 62 − 12 − ⌈log2 total_weight⌉: 1.5e-11 for the paper's
    9,562 images, far below float32's rounding of an update. Overflow is impossible: |Σ| <
    total_weight·2^12·2^bits ≤ 2^62.
    """

    def __init__(self, size: int, total_weight: int, device: torch.device | str = "cpu") -> None:
        weight_bits = math.ceil(math.log2(max(total_weight, 2)))
        self.bits = 62 - RANGE_BITS - weight_bits
        if self.bits < 20:
            raise InputError("total weight", total_weight, "at most 2^30 training images")
        self.total = torch.zeros(size, dtype=torch.int64, device=device)
        self.weight = 0

    def add(self, vector: Float[Tensor, " size"], weight: int) -> None:
        """Add weight·vector. A non-finite or huge coordinate is refused: the run diverged."""
        largest = float(vector.abs().max()) if vector.numel() else 0.0
        if not largest < 2**RANGE_BITS:
            raise InputError(
                "update",
                largest,
                f"finite coordinates below {2**RANGE_BITS} (training diverged; lower the rate)",
            )
        self.total += (vector.double() * 2.0**self.bits).round_().to(torch.int64) * weight
        self.weight += weight

    def mean(self) -> Float[Tensor, " size"]:
        """Σ n_i·x_i / Σ n_i, float32. Raises InputError where the weights sum up to zero."""
        return mean_of(self.total, self.weight, self.bits)


def mean_of(total: Int[Tensor, " size"], weight: int, bits: int) -> Float[Tensor, " size"]:
    if weight == 0:
        raise InputError("weights", 0, "updates whose weights do not sum up to zero")
    return (total.double() / (weight * 2.0**bits)).float()
