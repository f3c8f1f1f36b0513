"""The search for the best Rényi order: any order gives a valid ε, the best one the smallest.

The grid adapts. It starts coarse, grows on the side where the optimum sits on its edge, then
closes in on the optimum; a wrong guess costs tightness, never validity.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_FIRST, _LAST, _START_POINTS = math.log(0.03), math.log(64.0), 11  # in log(α − 1)
_LOWEST, _HIGHEST = math.log(1e-12), math.log(1e15)
_GROWTH_POINTS = 4
_ROUNDS, _INNER = 6, 6  # each round shrinks the bracket to 2/7
_FLAT = 1e-6  # relative rise to both neighbours at which the search stops

Objective = Callable[[np.ndarray], np.ndarray]  # orders (m,) → values (m,)


def minimise(objective: Objective) -> tuple[float, float]:
    """Smallest value of ``objective`` over orders in (1, ∞), and the order that gives it.

    objective: orders (m,) → values (m,), unimodal in the order up to rounding. Returns
    (∞, ∞) where it is infinite everywhere.
    """
    s = np.linspace(_FIRST, _LAST, _START_POINTS)
    values = objective(1 + np.exp(s))
    spacing = float(s[1] - s[0])
    while True:
        best = int(np.argmin(values))
        if best == 0 and s[0] > _LOWEST and values[0] != 0:
            more = s[0] - spacing * np.arange(_GROWTH_POINTS, 0, -1)
            s, values = np.concatenate([more, s]), np.concatenate([_at(objective, more), values])
        elif best == len(s) - 1 and s[-1] < _HIGHEST:
            more = s[-1] + spacing * np.arange(1, _GROWTH_POINTS + 1)
            s, values = np.concatenate([s, more]), np.concatenate([values, _at(objective, more)])
        else:
            break
        spacing *= 1.5
    if values[best] == math.inf:
        return math.inf, math.inf
    return _close_in(objective, s, values, best)


def _close_in(
    objective: Objective, s: np.ndarray, values: np.ndarray, best: int
) -> tuple[float, float]:
    for _ in range(_ROUNDS):
        around = [max(best - 1, 0), min(best + 1, len(s) - 1)]
        if values[around].max() - values[best] <= _FLAT * abs(values[best]):
            break
        low, high = s[around]
        inner = np.linspace(low, high, _INNER + 2)[1:-1]
        s, values = np.concatenate([s, inner]), np.concatenate([values, _at(objective, inner)])
        along = np.argsort(s)
        s, values = s[along], values[along]
        best = int(np.argmin(values))
    return _polish(objective, s, values, best)


def _polish(
    objective: Objective, s: np.ndarray, values: np.ndarray, best: int
) -> tuple[float, float]:
    """The best of: the best so far, the vertex of a parabola, and the integers on either side.

    Bounds that interpolate between integer orders have their optimum exactly on one of them.
    """
    order = 1 + math.exp(s[best])
    last = [order, max(2.0, math.floor(order)), max(2.0, math.ceil(order))]
    vertex = _vertex(s, values, best)
    if vertex is not None:
        last.append(1 + math.exp(vertex))
    final = objective(np.array(last, dtype=np.float64))  # orders may pass 2⁶³
    winner = int(np.argmin(final))
    return float(final[winner]), float(last[winner])


def _vertex(s: np.ndarray, values: np.ndarray, best: int) -> float | None:
    """Where the parabola through the best point and its neighbours is lowest."""
    if not 0 < best < len(s) - 1 or not np.all(np.isfinite(values[best - 1 : best + 2])):
        return None
    left, right = s[best - 1] - s[best], s[best + 1] - s[best]
    if not left < 0 < right:
        return None
    slope_left = (values[best - 1] - values[best]) / left
    slope_right = (values[best + 1] - values[best]) / right
    curvature = (slope_right - slope_left) / (right - left)
    if not curvature > 0:
        return None
    offset = -(slope_left - curvature * left) / (2 * curvature)
    return float(s[best] + min(max(offset, left), right))


def _at(objective: Objective, s: np.ndarray) -> np.ndarray:
    return objective(1 + np.exp(s))
