"""What a layer contributes to the clipped sum, given its input and its output's gradient.

Every rule turns one call of a layer into, for each parameter, either the per-sample gradients
themselves (``Kept``) or their norms now and a weighted sum later (``Deferred``: ghost norms).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of a layer. The leading dimension of x and g is records × views."""

    layer: Any
    x: Tensor  # its input
    g: Tensor  # the gradient of its output
    records: int
    saved: Any = None  # what the rule took from the forward pass

    @property
    def views(self) -> int:
        return len(self.g) // self.records


@dataclass
class Kept:
    """Per-sample gradients: row i of ``rows`` (B, n) is record i's, with this shape and layout."""

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


@dataclass
class Deferred:
    """Squared norms (B,), and how to make Σ_i factor_i · g_i from what the layer saved.

    sum_rows(x, g): the layer's ordinary parameter gradient. x and g are the saved tensors.
    """

    norms: Tensor
    x: Tensor
    g: Tensor
    sum_rows: Callable[[Tensor, Tensor], Tensor]

    def squared_norms(self) -> Tensor:
        return self.norms

    def weighted_sum(self, factors: Tensor, finite: Tensor | None) -> Tensor:
        views = len(self.g) // len(factors)
        x, g = self.x, self.g
        if finite is not None:  # 0 · NaN is NaN, so such rows leave both tensors
            rows = finite.repeat_interleave(views)
            g = without(g, rows)
            x = without(x, rows) if x.is_floating_point() else x
        weights = factors.repeat_interleave(views).to(g.dtype)
        return self.sum_rows(x, g * weights.view(-1, *[1] * (g.ndim - 1)))


Contribution = Kept | Deferred


@runtime_checkable
class LayerRule(Protocol):
    """Per-sample gradients of one type of layer."""

    def reason_against(self, layer: Any) -> str | None:
        """Why this layer's settings rule it out, else None."""
        ...

    def saved(self, layer: Any, output: Tensor) -> Any:
        """What to keep from the forward pass besides the input; None for nothing."""
        ...

    def contributions(self, call: Call, wanted: dict[str, bool]) -> dict[str, Contribution]:
        """Contributions of the layer's own parameters.

        wanted: name of each trainable parameter -> whether it must be ``Kept`` (because the
        parameter is used more than once, and only whole gradients can be added up).
        """
        ...


def without(values: Tensor, keep: Tensor) -> Tensor:
    """A copy of ``values`` with rows where not ``keep`` set to zero."""
    return values.masked_fill(~keep.view(-1, *[1] * (values.ndim - 1)), 0)


def by_record(values: Tensor, records: int) -> Tensor:
    """(records · views, …) -> (records, views, …)."""
    return values.unflatten(0, (records, len(values) // records))
