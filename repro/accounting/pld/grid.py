r"""Discretisation: a loss distribution on a grid that dominates the true one, by connected dots.

Replace κ by the polygon through its values at the losses i·h, as a function of y = e^ε. Since δ
is convex in y the polygon lies above it, so the pair of distributions it belongs to dominates
the true one at every ε; it is the tightest such pair on the grid (Doroshenko, Ghazi, Kamath,
Kumar, Manurangsi 2022, arXiv 2207.04380, Section 4). The polygon bends at y_i by as much as Q
has mass there, and P has y_i times that. With κ of ``profile`` (the hinge bends by 1 at y = 1),

    p_i = (κ_{i+1} − κ_i)/(e^h − 1) − (κ_i − κ_{i−1})/(1 − e^{−h}) + [i = 0].

Below the lowest point the polygon goes straight to κ(0) = 0, beyond the highest it stays level:
that is the mass at an infinite loss. Dominating pairs compose (Zhu, Dong, Wang 2022, Theorem 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from repro.accounting.pld.profile import Step
from repro.typing import Float

# Added to every κ: a hundred times what its evaluation is off by, relative.
_LIFT = 1e-11


@dataclass(frozen=True)
class Grid:
    """Losses first·h, (first + 1)·h, … with P's masses; the rest, ``infinite``, is at loss ∞."""

    h: float
    first: int
    masses: Float[np.ndarray, " losses"]
    infinite: float

    @property
    def losses(self) -> Float[np.ndarray, " losses"]:
        return self.h * np.arange(self.first, self.first + len(self.masses))


def connect_dots(step: Step, adding: bool, h: float, tail: float) -> Grid:
    """The dominating grid of spacing ``h`` for one step and direction; mass at ∞ ≲ ``tail``."""
    low, high = step.range(tail)
    if adding:
        low, high = -high, -low
    first, last = min(-1, math.floor(low / h)), max(1, math.ceil(high / h))
    losses = h * np.arange(first, last + 1)
    kappa = (step.add(losses) if adding else step.remove(losses)) * (1 + _LIFT)
    rise = np.diff(kappa)
    with np.errstate(over="ignore", under="ignore"):
        after = np.append(rise / np.expm1(h), 0.0)
    before = np.append(kappa[0], rise / -math.expm1(-h))
    masses = after - before
    masses[-first] += 1.0
    # Rounding may leave a few below 0; more mass only makes the pair easier to tell apart.
    return Grid(h, first, np.maximum(masses, 0.0), float(kappa[-1]))
