"""What a layer contributes to the clipped sum, given its input and its output's gradient.

Every rule turns one call of a layer into, for each parameter, either the per-sample gradients
themselves (``Kept``) or their norms now and a weighted sum later (``Deferred``: ghost norms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from repro.privacy.precision import widened

#: A ghost norm is believed while ‖g‖² ≥ spread / LIMIT, where spread = (Σ_t ‖x_t‖‖δ_t‖)² is what
#: it would be if nothing cancelled. Its float32 error was at most spread · 2⁻²⁴ wherever we
#: measured it; four times that is 1.5e-5 of ‖g‖² at the limit, so below 1e-5 of ‖g‖.
#: DPResNet's ghost layers have spread / ‖g‖² from 1.3 to 41, so they are almost never redone.
LIMIT = 64


@dataclass(frozen=True)
class Call:
    """One call of a layer. The leading dimension of input and gradient is records × views."""

    layer: Any
    input: Tensor  # of any type
    gradient: Tensor  # of its output, of any type
    records: int
    saved: Any = None  # what the rule took from the forward pass

    @cached_property
    def x(self) -> Tensor:
        """The input, at least float32."""
        return widened(self.input)

    @cached_property
    def g(self) -> Tensor:
        """The gradient of the output, at least float32."""
        return widened(self.gradient)

    @property
    def in_bfloat16(self) -> bool:
        return self.input.dtype == self.gradient.dtype == torch.bfloat16

    @property
    def views(self) -> int:
        return len(self.gradient) // self.records


@dataclass
class Kept:
    """Per-sample gradients: row i of ``rows`` (B, n) is record i's, with this shape and layout.

    The norm is of the very numbers that are summed, so the clip bound needs no further proof.
    """

    rows: Tensor
    shape: torch.Size
    strides: tuple[int, ...]

    @classmethod
    def of(cls, gradients: Tensor) -> Kept:
        """From (B, *shape)."""
        gradients = gradients.contiguous()
        one = gradients.shape[1:]
        return cls(gradients.view(len(gradients), one.numel()), one, gradients.stride()[1:])

    def plus(self, other: Kept) -> Kept:
        """Gradients of two uses of one parameter, added record by record."""
        return Kept.of(self._gradients() + other._gradients())

    def _gradients(self) -> Tensor:
        return self.rows.as_strided(
            (len(self.rows), *self.shape), (self.rows.stride(0), *self.strides)
        )

    def squared_norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.rows, dim=1).square()

    def weighted_sum(self, factors: Tensor, finite: Tensor | None) -> Tensor:
        rows = self.rows if finite is None else without(self.rows, finite)
        return (factors.to(rows.dtype) @ rows).as_strided(self.shape, self.strides)


@dataclass(frozen=True)
class GhostNorms:
    """Squared norms (B,) made of Gram matrices, and how far they can be trusted.

    spread: (Σ_t ‖x_t‖‖δ_t‖)², (B,): an upper bound of the squared norm, and the scale of its
        rounding error.
    """

    squared: Tensor
    spread: Tensor

    @classmethod
    def of(cls, squared: Tensor, inputs: Tensor, outputs: Tensor) -> GhostNorms:
        """inputs, outputs: ‖x_t‖² and ‖δ_t‖² of every position, (B, T); (B, groups, T) where
        the gradient has one block for each group."""
        sums = (inputs.sqrt() * outputs.sqrt()).sum(dim=-1).square()
        spread = sums.flatten(1).sum(dim=1) if sums.ndim > 1 else sums
        return cls(squared, spread + LIMIT * _lost(inputs.flatten(1), outputs.flatten(1)))


def _lost(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Bound of the squared norm (B,) of products whose squares underflow.

    Squares below 1e-28 may be lost to float32's smallest numbers; their roots, 1e-14, times the
    largest root on the other side, at each of T positions, could still be seen in the gradient.
    """
    tiny = 1e-28 if inputs.dtype == torch.float32 else 1e-280
    return tiny * inputs.shape[1] ** 2 * (inputs.amax(dim=1) + outputs.amax(dim=1))


@dataclass
class Deferred:
    """Squared norms now, and how to make Σ_i factor_i · g_i from what the layer saved.

    sum_rows(x, g): the layer's ordinary parameter gradient. x and g are the saved tensors.
    """

    norms: GhostNorms
    x: Tensor
    g: Tensor
    sum_rows: Callable[[Tensor, Tensor], Tensor]
    _exact: dict[int, Tensor] = field(default_factory=dict)

    @property
    def views(self) -> int:
        return len(self.g) // len(self.norms.squared)

    def squared_norms(self) -> Tensor:
        return self.norms.squared

    def recomputed(self, records: list[int]) -> Tensor:
        """Squared norms (len(records),) of these records' gradients, formed and kept from now on:
        what is summed later is what was measured here."""
        norms = []
        for record in records:
            rows = slice(record * self.views, (record + 1) * self.views)
            # A loss that is already perfect: nothing was lost. But 0 · NaN and 0 · Inf are NaN, in
            # the sum too, so such a record must get the norm that drops it.
            if not bool(self.g[rows].any()) and bool(self.x[rows].isfinite().all()):
                norms.append(self.norms.squared.new_zeros(()))
                continue
            gradient = self.sum_rows(self.x[rows], self.g[rows])
            self._exact[record] = gradient
            norms.append(torch.linalg.vector_norm(gradient).square())
        return torch.stack(norms)

    def weighted_sum(self, factors: Tensor, finite: Tensor | None) -> Tensor:
        """Σ_i factor_i · g_i of the records that are finite."""
        batched = finite
        if self._exact:
            batched = torch.ones_like(factors, dtype=torch.bool) if finite is None else finite
            batched = batched.clone()
            batched[list(self._exact)] = False
        total = self._sum(factors, batched)
        for record, gradient in self._exact.items():
            if finite is None or bool(finite[record]):
                total = total + factors[record] * gradient
        return total

    def _sum(self, factors: Tensor, wanted: Tensor | None) -> Tensor:
        x, g = self.x, self.g
        if wanted is not None:  # 0 · NaN is NaN, so such rows leave both tensors
            rows = wanted.repeat_interleave(self.views)
            g = without(g, rows)
            x = without(x, rows) if x.is_floating_point() else x
        weights = factors.repeat_interleave(self.views).to(g.dtype)
        return self.sum_rows(x, g * weights.view(-1, *[1] * (g.ndim - 1)))


Contribution = Kept | Deferred


class LayerRule:
    """Per-sample gradients of one type of layer: of its ``weight``, and its ``bias`` if it has one.

    A rule without a setting that it cannot do, and that needs nothing but input and gradient, has
    these two alone.
    """

    def reason_against(self, layer: Any) -> str | None:
        """Why this layer's settings rule it out, else None."""
        return None

    def saved(self, layer: Any, output: Tensor) -> Any:
        """What to keep from the forward pass besides the input; None for nothing."""
        return None

    def weight(self, call: Call, kept: bool) -> Contribution:
        """kept: it must be ``Kept`` (the weight is used more than once, and only whole gradients
        can be added up)."""
        raise NotImplementedError

    def bias(self, call: Call) -> Tensor:
        """(B, size), every record's gradient."""
        raise NotImplementedError

    def contributions(self, call: Call, wanted: dict[str, bool]) -> dict[str, Contribution]:
        """wanted: name of each trainable parameter of its own -> whether it must be ``Kept``."""
        result = dict[str, Contribution]()
        if "weight" in wanted:
            result["weight"] = self.weight(call, wanted["weight"])
        if "bias" in wanted:
            result["bias"] = Kept.of(self.bias(call))
        return result


def without(values: Tensor, keep: Tensor) -> Tensor:
    """A copy of ``values`` with rows where not ``keep`` set to zero."""
    return values.masked_fill(~keep.view(-1, *[1] * (values.ndim - 1)), 0)


def by_record(values: Tensor, records: int) -> Tensor:
    """(records · views, …) -> (records, views, …)."""
    return values.unflatten(0, (records, len(values) // records))
