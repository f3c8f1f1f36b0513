"""From the distribution of the composed loss to (ε, δ).

δ(ε) = P(L = ∞) + Σ_{L_i > ε} p_i·(1 − e^{ε − L_i}), which between two losses of the grid is
linear in e^ε, so the smallest ε for a δ has a closed form there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from repro.accounting.pld.compose import EXTENDED, Sum, convolve
from repro.accounting.pld.grid import Grid, Merged, slip
from repro.accounting.pld.plan import ConvolutionPlan, Guess
from repro.accounting.pld.profile import Losses
from repro.shapes import Float

_EPS = 2.0**-52
_UP = 1 + 1e-12
_DOWN = 1 - 1e-9
_EXPONENT_LIMIT = 650.0
_SHARE = 1e-2  # of δ, that rounding may be before another tilt is tried
_TILTS = 8  # tried, each a quarter of the last

Epsilons = Float[np.ndarray, " epsilons"]  # or a number at each


def upper_epsilon(grids: Sequence[tuple[Grid, int]], where: ConvolutionPlan, delta: float) -> Guess:
    """The smallest ε ≥ 0 at ``delta`` of the composed grids, rounded up; ∞ if there is none.

    Every tilt gives a valid one. Where the planned tilt leads so far that what decides is the
    allowance for rounding, gentler ones are tried, then extended precision.
    """
    best, tilted, rounded = Guess(math.inf, 0.0), where, 0.0
    for _ in range(_TILTS):
        total = convolve(grids, where)
        guess = _guess(total, delta)
        if guess.epsilon >= best.epsilon:
            break
        best, tilted, rounded = guess, where, total.allowance(guess.epsilon)
        if rounded <= _SHARE * delta:
            break
        where = where.gentler()
    if EXTENDED and rounded > _SHARE * delta:
        guess = _guess(convolve(grids, tilted, extended=True), delta)
        best = min(best, guess, key=lambda one: one.epsilon)
    return best


def _guess(total: Sum, delta: float) -> Guess:
    found = epsilon_of(total.losses, total.masses, delta * (1 - 1e-12) - total.infinite)
    # dδ/dε = −e^ε·Q(L > ε) = δ − P(L > ε)
    above = total.infinite + float(total.masses[total.losses > found].sum())
    return Guess(found, max(above / delta - 1, 0.0))


def upper_delta(grids: Sequence[tuple[Grid, int]], where: ConvolutionPlan, epsilon: float) -> float:
    """The smallest δ at ``epsilon``, in the same way, at most 1."""
    best = 1.0
    for _ in range(_TILTS):
        total = convolve(grids, where)
        best = min(best, _delta_at(total, epsilon))
        if total.allowance(epsilon) <= _SHARE * best:
            break
        where = where.gentler()
    return best


def upper_deltas(
    grids: Sequence[tuple[Grid, int]], where: ConvolutionPlan, epsilons: Epsilons
) -> Epsilons:
    """δ at every ε ≥ 0 of ``epsilons`` (m,) → (m,), rounded up, at most 1, by one composition.

    Close to the truth about where ``where`` leads; valid everywhere, 1 where nothing is known.
    """
    total = convolve(grids, where)
    return np.array([_delta_at(total, epsilon) for epsilon in epsilons.tolist()])


def _delta_at(total: Sum, epsilon: float) -> float:
    """δ at ``epsilon``, rounded up; 1 where sums below the window would be missing."""
    if total.losses[0] > epsilon:
        return 1.0
    beyond = total.losses > epsilon
    found = float(total.masses[beyond] @ -np.expm1(epsilon - total.losses[beyond]))
    return min((total.infinite + found) * (1 + 1e-9), 1.0)


def lower_epsilon(
    parts: Sequence[tuple[Merged, int]], where: ConvolutionPlan, delta: float
) -> float:
    """An ε at which the composed steps are not (ε, δ)-DP, or 0: see ``grid`` for the proof."""
    t = slip(parts, where.tail)
    if not math.isfinite(t):
        return 0.0
    # On the grid the sums lie t higher than their merged losses do.
    grids, moved = [(part.grid, count) for part, count in parts], where.shifted(t)
    total = convolve(grids, moved)
    needed = delta * _UP + where.tail
    losses = total.losses - t
    least_known = max(float(losses[0]), 0.0) * (1 + 1e-9)  # δ below it is not known
    at = epsilon_of(losses, total.least, needed, -1.0)
    if EXTENDED and total.allowance(at + t) > _SHARE * delta:
        total = convolve(grids, moved, extended=True)
        at = epsilon_of(losses, total.least, needed, -1.0)
    for _ in range(_TILTS):
        if not least_known < at < math.inf:
            break
        # What wrapped around is bounded at ``at``, so for every ε above it too.
        found = epsilon_of(losses, total.least, needed + total.wrapped(at + t), -1.0)
        if found >= at:
            return max(at * _DOWN - 1e-12, 0.0)
        at = found * (1 - 1e-4)
    return 0.0


def epsilon_of(losses: Losses, masses: Losses, left: float, outward: float = 1.0) -> float:
    """The smallest ε ≥ 0 with Σ_{L > ε} p·(1 − e^{ε − L}) ≤ ``left``, rounded up (−1: down).

    At least the smallest loss, below which nothing is known; ∞ if ``left`` ≤ 0.
    """
    if left <= 0:
        return math.inf
    floor = max(float(losses[0]), 0.0)
    kept = losses > floor
    losses, masses = losses[kept], masses[kept]
    if not len(losses):
        return floor
    above = np.cumsum(masses[::-1])[::-1]  # P(L ≥ L_j)
    # e^{−L} in units of e^{−L_j} at the loss that will decide: no overflow, no underflow there.
    around = losses[max(int(np.searchsorted(-above, -left)) - 1, 0)]
    with np.errstate(under="ignore"):
        scaled = masses * np.exp(np.minimum(around - losses, _EXPONENT_LIMIT))
        other = np.cumsum(scaled[::-1])[::-1]  # Q(L ≥ L_j)·e^{around}
        # Each of the sums of up to n terms, one after another, is off by at most n·2⁻⁵³.
        above = above * (1 + outward * 4 * _EPS * np.arange(len(losses), 0, -1))
        at_loss = above - np.exp(np.minimum(losses - around, _EXPONENT_LIMIT)) * other
    exceeds = np.flatnonzero(at_loss > left)
    j = int(exceeds[-1]) + 1 if len(exceeds) else 0
    if j == len(losses):
        return math.inf
    low = float(losses[j - 1]) if j else floor
    if above[j] <= left:
        # Even without the subtraction: only possible at the lower end, or by rounding.
        return low * _UP
    epsilon = float(around) + math.log(float(above[j] - left)) - math.log(float(other[j]))
    return min(max(epsilon, low), float(losses[j])) * _UP
