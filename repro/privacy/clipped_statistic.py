"""Sums of record-wise vectors and of their outer products, every record clipped first.

The one path of a statistic that is not a gradient: clip each record's vector to L2 norm C, in
float64, and add up. Like ``repro.privacy.step`` does with gradients, and nothing in between;
whoever calls adds the noise before anybody else sees the sum.

**Bound.** What one record adds has L2 norm at most C·(1 + ``SLACK``), whatever the record holds.
In floats of unit roundoff u = 2⁻⁵³ the norm of F numbers is computed to a relative (F/2 + 1)·u and
two divisions add 2u (Higham 2002, sections 2.2 and 4.2): below 3e-10, twice that for a product,
for F up to 5·10⁶; longer vectors are refused. A record with NaN or Inf, or whose squared norm
overflows, adds exactly zero. Squares that underflow make a norm smaller only where it is far below
C, and nothing is clipped.

**Rounding of the sum.** Adding up n vectors of norm at most C, in any order, errs by at most
``sum_error(n, C)`` in L2; the sums of two neighbours by twice that. It is no part of the bound
above: who accounts for the sum adds it to the sensitivity (``NoisePlan.sum_error``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repro.checks import Number, check_count, check_positive
from repro.errors import InputError
from repro.shapes import Float

SLACK = 1e-9  # relative; see "Bound" above
_LONGEST = 5_000_000
# √2 in float32, which is below it by 1.7e-8 of it, so a product is no longer than it should be:
# the results of record were made so, and whoever reads the sum divides by the same number.
_ROOT_TWO = 1.4142135381698608

Records = Float[Tensor, "records size"]


@torch.no_grad()
def clipped_vectors(records: Records, bound: Number) -> Records:
    """Each row v as v / max(1, ‖v‖/C), in float64; zero where ‖v‖² is not finite.

    records: any floating-point type. bound: C, between 1e-100 and 1e100.
    """
    check_bound(bound)
    if records.shape[1] > _LONGEST:
        raise InputError("records", tuple(records.shape), f"at most {_LONGEST} numbers a record")
    values = records.double()
    finite = values.isfinite().all(dim=1, keepdim=True)
    values = torch.where(finite, values, 0.0)
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return values / (norms / bound).clamp_min(1)  # v / ∞ is 0


def clipped_vector_sum(records: Records, bound: Number) -> Float[Tensor, " size"]:
    """Σ_i clip(v_i) over rows v_i, float64 (size,); one record adds at most C(1 + ``SLACK``)."""
    return clipped_vectors(records, bound).sum(dim=0)


@torch.no_grad()
def clipped_product_sum(records: Records, bound: Number) -> Float[Tensor, " entries"]:
    """Σ_i u_i u_iᵀ over rows clipped to √C, its upper triangle: float64 (size(size + 1)/2,).

    Entries off the diagonal stand for two, so √2 times each (``triangle_scale``): the vector's
    length is then the matrix's Frobenius norm, and ‖u uᵀ‖_F = ‖u‖² ≤ C.
    """
    vectors = clipped_vectors(records, math.sqrt(check_bound(bound)))
    upper = torch.triu_indices(vectors.shape[1], vectors.shape[1], device=vectors.device)
    total = vectors.T @ vectors
    return total[upper[0], upper[1]] * triangle_scale(upper)


def triangle_scale(upper: Tensor) -> Float[Tensor, " entries"]:
    """1 on the diagonal, √2 off it; upper (2, entries): row and column of each entry."""
    return torch.where(upper[0] == upper[1], 1.0, _ROOT_TWO).double()


def sum_error(records: int, bound: Number) -> float:
    """L2 error of a float64 sum of at most ``records`` vectors of norm ``bound``: n²·u·C.

    A sum whose addends each pass at most k additions is off by k·u·Σ|addends| in every coordinate,
    to first order in u (Higham 2002, section 4.2), so by k·u·n·C in L2, with k ≤ n − 1. An outer
    product's entries are products, and √2 is rounded too: 3u·n·C more, for n up to 10⁶ less than
    4e-10·C, which ``SLACK`` covers.
    """
    return check_count("records", records, least=0) ** 2 * 2.0**-53 * check_positive("bound", bound)


def check_bound(bound: Number) -> float:
    """C as a float; neither its square nor its root may over- or underflow."""
    number = check_positive("bound", bound)
    if not 1e-100 <= number <= 1e100:
        raise InputError("bound", bound, "between 1e-100 and 1e100")
    return number
