r"""Discretisation: a loss distribution on a grid that dominates the true one, by connected dots.

Replace κ by the polygon through its values at the losses i·h, as a function of y = e^ε. Since δ
is convex in y the polygon lies above it, so the pair of distributions it belongs to dominates
the true one at every ε; it is the tightest such pair on the grid (Doroshenko, Ghazi, Kamath,
Kumar, Manurangsi 2022, arXiv 2207.04380, Section 4). The polygon bends at y_i by as much as Q
has mass there, and P has y_i times that. With κ of ``profile`` (the hinge bends by 1 at y = 1),

    p_i = (κ_{i+1} − κ_i)/(e^h − 1) − (κ_i − κ_{i−1})/(1 − e^{−h}) + [i = 0].

Below the lowest point the polygon goes straight to κ(0) = 0, beyond the highest it stays level:
that is the mass at an infinite loss. Dominating pairs compose (Zhu, Dong, Wang 2022, Theorem 10).

From below: merge all outcomes whose loss rounds to the same i·h into one. That is post-processing
of both distributions, so no δ(ε) grows, at any step of a composition. The merged loss
log(Σp/Σq) is off i·h by a little, d_i. The sum of losses is the sum of the i·h plus that of the
d, and with S = Σd, by monotony of the hinge,

    δ(ε) ≥ E[(1 − e^{ε − h·Σi − S})₊] ≥ E[(1 − e^{ε + t − h·Σi})₊] − P(S < −t)    for every t,

with P(S < −t) ≤ e^{Σ log E[e^{−s·d}] − s·t} for every s > 0 (Chernoff). As most of d is symmetric
within a cell, both d and what merging loses of the variance (h²/12 a step) are small in h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro.accounting.pld.profile import Losses, Step

# Added to every κ: a hundred times what its evaluation is off by, relative.
_LIFT = 1e-11
_RARE = 1e3  # times ``tail``: a tenth of δ at most, in all steps


@dataclass(frozen=True)
class Grid:
    """Losses first·h, (first + 1)·h, … with P's masses; the rest, ``infinite``, is at loss ∞."""

    h: float
    first: int
    masses: Losses
    infinite: float

    @property
    def losses(self) -> Losses:
        return self.h * np.arange(self.first, self.first + len(self.masses))


def connect_dots(step: Step, adding: bool, h: float, tail: float, least: float = -math.inf) -> Grid:
    """The dominating grid of spacing ``h`` for one step and direction; mass at ∞ ≲ ``tail``.

    Losses below ``least`` are raised to it: the polygon may begin anywhere. Adding a rarely
    sampled record has losses of 0 to q, and with next to no probability some thousand times −q.
    """
    low, high = step.range(tail)
    if adding:
        low, high = -high, -low
    low = max(low, least)
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


@dataclass(frozen=True)
class Merged:
    """One step's outcomes, merged on a grid, and how far each merged loss is above its point."""

    grid: Grid
    above: Losses


def merge(step: Step, adding: bool, h: float, tail: float, least: float = -math.inf) -> Merged:
    """The merged outcomes of one step on a grid of spacing ``h``; those beyond ``tail`` in one.

    Those below ``least``, and all too rare ones of the smallest losses, which are far from any
    point, are left out: less mass is less to tell apart.

    The grid is moved so that the heaviest outcome's merged loss is on a point: where half of the
    mass is at the smallest loss, log(1 − q), d would else be far from symmetric.
    """
    low, high = step.range(tail)
    cut = (high if adding else -low) > -least
    low, high = (low, min(high, -least)) if adding else (max(low, least), high)
    lowest = -1 if adding else 0
    first, last = math.floor(low / h) - 1, math.ceil(high / h) + 1
    edges = h * (np.arange(first, last) + 0.5)
    for _ in range(2):
        found = step.cells(edges)
        masses = found.plain if adding else found.mixed
        with np.errstate(invalid="ignore"):
            kept = (masses > 0) & (found.plain > 0) & (found.error < 1e-3)
        kept[lowest] &= not cut and masses[lowest] > _RARE * tail
        masses = np.where(kept, masses, 0.0)
        above = np.where(kept, found.losses, 0.0) - h * np.arange(first, last + 1)
        heaviest = int(np.argmax(masses))
        edges = edges + above[heaviest]
    error = np.where(kept, found.error, 0.0)
    if adding:
        return Merged(Grid(h, -last, masses[::-1], 0.0), (-above - error)[::-1])
    return Merged(Grid(h, first, masses, 0.0), above - error)


def slip(parts: Sequence[tuple[Merged, int]], tail: float) -> float:
    """t with P(Σd < −t) ≤ ``tail``: negative where the grid was moved down, ∞ if none is found."""
    variance = 0.0
    for part, count in parts:
        weights = part.grid.masses / part.grid.masses.sum()
        variance += count * float(weights @ (part.above - float(weights @ part.above)) ** 2)
    h = parts[0][0].grid.h
    # The best s of a normal sum; where few steps are off at all, Σd is not near normal.
    normal = math.sqrt(-2 * math.log(tail) / max(variance, 1e-30 * h * h))
    tried = [normal / 4, normal / 2, normal, 4 / h, 16 / h, 64 / h]
    return min(_chernoff(parts, s, tail) for s in tried)


def _chernoff(parts: Sequence[tuple[Merged, int]], s: float, tail: float) -> float:
    total, rounding = -math.log(tail), 0.0
    for part, count in parts:
        kept = part.grid.masses > 0
        weights, above = part.grid.masses[kept] / part.grid.masses.sum(), part.above[kept]
        centre = float(weights @ above)
        with np.errstate(over="ignore", under="ignore"):
            # Taken about the mean, so that a large count does not magnify rounding.
            away = float(weights @ np.expm1(-s * (above - centre)))
        total += count * (math.log1p(away) - s * centre)
        rounding += 1e-14 * count * float(weights @ np.abs(above))
    return total / s + rounding
