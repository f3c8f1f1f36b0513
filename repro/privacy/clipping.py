"""How much of a record's gradient is kept, and the L2 sensitivity that follows.

The norm is always over **all** parameters of the model together, except with ``per_layer``,
which divides the same total norm among the parameter tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.checks import Number, check_above_zero, check_choice
from repro.errors import InputError
from repro.shapes import Bool, Float

KINDS: tuple[str, ...] = ("flat", "per_layer", "automatic")


@dataclass(frozen=True)
class Clipping:
    """A clipping rule; each bounds a record's contribution by ``clip_norm`` in L2 norm.

    | kind      | factor of a gradient of norm n   | source                                      |
    |-----------|----------------------------------|---------------------------------------------|
    | flat      | min(1, C / n)                    | Abadi et al. 2016, Algorithm 1              |
    | per_layer | min(1, C / (√L · n_l)), tensor l | McMahan et al. 2018 (arXiv 1710.06963, 3.2) |
    | automatic | C / (n + γ)                      | Bu et al. 2023 (arXiv 2206.07136, AUTO-S)   |

    Edge cases: a zero gradient stays zero; a gradient with NaN or Inf, or whose squared norm
    overflows, contributes exactly zero.
    """

    clip_norm: Number
    kind: str = "flat"
    gamma: Number = 0.01  # stability constant of AUTO-S; used by "automatic" only

    def __post_init__(self) -> None:
        check_above_zero(self, "clip_norm", "gamma")
        if not 1e-15 <= self.clip_norm <= 1e15:
            # Squared norms around the clip norm must neither under- nor overflow in float32.
            raise InputError("clip_norm", self.clip_norm, "between 1e-15 and 1e15")
        check_choice("clipping kind", self.kind, KINDS)

    def sensitivity(self, relation: str = "add_remove") -> float:
        """Largest L2 change of the clipped sum between neighbouring data sets."""
        return sensitivity_of(self.clip_norm, relation)

    def factors(
        self, squared_norms: Float[Tensor, "records groups"]
    ) -> tuple[Float[Tensor, "records groups"], Bool[Tensor, " records"], Bool[Tensor, " records"]]:
        """What to multiply each record's gradient by, per parameter tensor.

        squared_norms: of each parameter tensor of each record (one group is the whole model).
        Returns the factors, which records are finite, and which finite ones were clipped
        (for ``automatic``: had a norm above ``clip_norm``). Records not finite have factor 0,
        by which the fused kernel knows them (it never loads their rows); a caller must not
        multiply their NaNs by it, since 0 · NaN is NaN.
        """
        total = squared_norms.sum(dim=1, keepdim=True)
        finite = torch.isfinite(total)
        # Ghost norms are differences of large sums: rounding can push a zero below zero.
        norms = total.clamp_min(0).sqrt()
        if self.kind == "automatic":
            factors = self.clip_norm / (norms + self.gamma)
            clipped = (norms > self.clip_norm).any(dim=1)
        else:
            limit = self.clip_norm
            if self.kind == "per_layer":
                norms = squared_norms.clamp_min(0).sqrt()
                limit = self.clip_norm / math.sqrt(squared_norms.shape[1])
            factors = (limit / norms).clamp_max(1)
            clipped = (norms > limit).any(dim=1)
        factors = torch.where(finite, factors, 0).expand_as(squared_norms)
        return factors, finite[:, 0], clipped & finite[:, 0]


def sensitivity_of(clip_norm: Number, relation: str) -> float:
    """Largest L2 change of a sum of vectors up to ``clip_norm`` between neighbouring data sets."""
    replaced = check_choice("relation", relation, ("add_remove", "replace_one")) == "replace_one"
    return float(clip_norm) * (2 if replaced else 1)
