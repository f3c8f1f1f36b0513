"""From the distribution of the composed loss to (ε, δ).

δ(ε) = P(L = ∞) + Σ_{L_i > ε} p_i·(1 − e^{ε − L_i}), which between two losses of the grid is
linear in e^ε, so the smallest ε for a δ has a closed form there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from repro.accounting.pld.compose import Plan, Sum, convolve
from repro.accounting.pld.grid import Grid

_UP = 1 + 1e-12
_EXPONENT_LIMIT = 650.0
_SHARE = 1e-3  # of δ, that rounding may be before another tilt is tried
_TILTS = 8  # tried, each a quarter of the last


@dataclass(frozen=True)
class Composition:
    """Grids with their counts, and the plan for adding their losses up at one δ."""

    grids: Sequence[tuple[Grid, int]]
    plan: Plan
    tail: float

    @property
    def zero(self) -> bool:
        """Whether ε = 0 holds at the planned δ, as Chernoff's bound alone shows."""
        return self.plan.zero

    @property
    def points(self) -> int:
        return self.plan.points(self.grids[0][0].h)

    def epsilon(self, delta: float) -> float:
        """The smallest ε ≥ 0 at ``delta``.

        Every tilt gives a valid one. Where the planned tilt leads so far that what decides is
        the allowance for rounding, gentler ones are tried.
        """
        best, where = math.inf, self.plan
        for _ in range(_TILTS):
            total = convolve(self.grids, where, self.tail)
            best = min(best, epsilon_of(total, delta))
            if total.allowance(best) <= _SHARE * delta:
                break
            where = replace(where, tilt=where.tilt / 4)
        return best

    def delta(self, epsilon: float) -> float:
        """The smallest δ at ``epsilon``, in the same way."""
        best, where = 1.0, self.plan
        for _ in range(_TILTS):
            total = convolve(self.grids, where, self.tail)
            best = min(best, delta_of(total, epsilon))
            if total.allowance(epsilon) <= _SHARE * best:
                break
            where = replace(where, tilt=where.tilt / 4)
        return best


def epsilon_of(total: Sum, delta: float) -> float:
    """The smallest ε ≥ 0 with δ(ε) ≤ ``delta``, rounded up; ∞ if the mass at ∞ alone exceeds it."""
    left = delta * (1 - 1e-12) - total.infinite
    if left <= 0:
        return math.inf
    kept = total.losses > 0
    losses, masses = total.losses[kept], total.masses[kept]
    if not len(losses):
        return 0.0
    above = np.cumsum(masses[::-1])[::-1]  # P(L ≥ L_j)
    # e^{−L} in units of e^{−L_j} at the loss that will decide: no overflow, no underflow there.
    around = losses[max(int(np.searchsorted(-above, -left)) - 1, 0)]
    with np.errstate(under="ignore"):
        scaled = masses * np.exp(np.minimum(around - losses, _EXPONENT_LIMIT))
        other = np.cumsum(scaled[::-1])[::-1]  # Q(L ≥ L_j)·e^{around}
        at_loss = above - np.exp(np.minimum(losses - around, _EXPONENT_LIMIT)) * other
    exceeds = np.flatnonzero(at_loss > left)
    j = int(exceeds[-1]) + 1 if len(exceeds) else 0
    if j == len(losses):
        return math.inf
    if above[j] <= left:
        # Even without the subtraction: only possible at the lower end, or by rounding.
        return float(losses[j - 1]) * _UP if j else 0.0
    epsilon = float(around) + math.log(float(above[j] - left)) - math.log(float(other[j]))
    low = float(losses[j - 1]) if j else 0.0
    return min(max(epsilon, low), float(losses[j])) * _UP


def delta_of(total: Sum, epsilon: float) -> float:
    """δ at ``epsilon`` ≥ 0, rounded up, at most 1."""
    beyond = total.losses > epsilon
    shares = -np.expm1(epsilon - total.losses[beyond])
    return min(1.0, (total.infinite + float(total.masses[beyond] @ shares)) * _UP)
