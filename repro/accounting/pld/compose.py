r"""Composition: the sum of independent losses, by FFT, with every error on the safe side.

Losses of composed steps add up, so their distributions are convolved. Before the transform each
distribution is tilted, p_i → p_i·e^{θ·L_i}/M(θ), and the result is tilted back (Keich 2005, J.
Comput. Biol. 12(4), "sFFT"): rounding errors are then relative to the part of the distribution
that decides ε, not to 1, and any δ can be asked for. What is left out is bounded and added:

- sums outside the window, at most e^{K(λ) − λU} for any λ > 0 above U (Chernoff; K is the log
  moment generating function), likewise below: counted as infinite loss.
- rounding: transforms of vectors of sum 1 are off by at most a few log₂(n)·2⁻⁵², and the c-th
  power of one by c times that and |F|^(c−1); the mean over frequencies is added to every mass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro.accounting.pld.grid import Grid
from repro.typing import Float, Shaped

_EPS = 2.0**-52
_LAMBDAS = np.geomspace(1 / 64, 64.0, 21)
_EXPONENT_LIMIT = 600.0
_TILTED_TAIL = 1e-6


@dataclass(frozen=True)
class Sum:
    """Distribution of the composed loss: ``masses`` at ``losses`` (rising), the rest at ∞."""

    losses: Float[np.ndarray, " losses"]
    masses: Float[np.ndarray, " losses"]
    infinite: float
    added: Float[np.ndarray, " losses"]  # what of each mass is the allowance for rounding

    def allowance(self, epsilon: float) -> float:
        """How much of the mass above ``epsilon`` stands for rounding errors."""
        return float(self.added[self.losses > epsilon].sum())


@dataclass(frozen=True)
class Plan:
    """Where the composed loss lies and how to tilt it, at one δ."""

    low: float
    high: float
    tilt: float
    zero: bool  # Chernoff alone shows that δ suffices at ε = 0

    def points(self, h: float) -> int:
        return fast_length(int((self.high - self.low) / h) + 3)


def plan(parts: Sequence[tuple[Grid, int]], delta: float, tail: float) -> Plan:
    """Bounds low ≤ Σ loss ≤ high, each missed with probability at most ``tail``, and the tilt.

    The tilt is the λ of the best Chernoff bound at ``delta``: it moves the middle of the
    distribution to where δ(ε) is about δ.
    """
    mean, variance = _moments(parts)
    scale = math.sqrt(-2 * math.log(delta) / max(variance, 1e-300))
    lambdas = scale * _LAMBDAS
    up, down = _log_moments(parts, lambdas), _log_moments(parts, -lambdas[::3])
    high = float(np.min((up - math.log(tail)) / lambdas))
    low = float(np.max(-(down - math.log(tail)) / lambdas[::3]))
    at_delta = (up - math.log(delta)) / lambdas
    smallest = float(at_delta.min())
    # The smallest tilt that is about as good: where one jump decides, larger ones gain nothing.
    chosen = int(np.argmax(at_delta <= smallest + 1e-3 * abs(smallest)))
    if chosen + 1 < len(lambdas):
        # Tilted sums above the window would wrap around to where δ is decided, and loosen it.
        later = lambdas[chosen + 1 :] - lambdas[chosen]
        tilted = (up[chosen + 1 :] - up[chosen] - math.log(_TILTED_TAIL)) / later
        high = max(high, float(tilted.min()))
    most = sum(float(grid.losses[-1]) * count for grid, count in parts)
    least = sum(float(grid.losses[0]) * count for grid, count in parts)
    return Plan(
        max(min(low, mean), least),
        min(max(high, mean), most),
        float(lambdas[chosen]),
        smallest <= 0,
    )


def convolve(parts: Sequence[tuple[Grid, int]], where: Plan, tail: float) -> Sum:
    """Distribution of the sum of each grid's loss, ``count`` times; all grids share one h."""
    h = parts[0][0].h
    n = where.points(h)
    spectrum = np.ones(n // 2 + 1, dtype=np.complex128)
    finite = log_moment = 0.0  # log probability that no loss is infinite; K(tilt)
    for grid, count in parts:
        tilted, once = _tilted(grid, where.tilt)
        log_moment += count * once
        index = np.arange(grid.first, grid.first + len(tilted)) % n
        once_spectrum = np.fft.rfft(np.bincount(index, weights=tilted, minlength=n))
        spectrum *= _power(once_spectrum, count)
        finite += count * math.log1p(-min(grid.infinite * (1 + 4 * _EPS), 1 - _EPS))
    tilted = np.fft.irfft(spectrum, n)
    rounding = _rounding(spectrum, [count for _, count in parts], n)
    start = math.floor(where.low / h)
    losses = h * np.arange(start, start + n)
    tilted = np.roll(tilted, -(start % n))
    back = np.minimum(log_moment - where.tilt * losses, _EXPONENT_LIMIT)
    with np.errstate(under="ignore"):
        untilt = np.exp(back + 1e-12 * (1 + np.abs(back)))
        added = rounding * untilt
        masses = np.maximum(tilted, 0.0) * untilt + added
    # Far below where the tilt leads, the rounding added says nothing: no mass is above 1.
    infinite = -math.expm1(finite) + 2 * tail
    return Sum(losses, np.minimum(masses, 1.0), infinite, np.minimum(added, 1.0))


def _tilted(grid: Grid, tilt: float) -> tuple[Float[np.ndarray, " losses"], float]:
    """(masses·e^{tilt·L}/M, log M): sums to 1."""
    with np.errstate(divide="ignore", under="ignore"):
        exponents = tilt * grid.losses + np.log(grid.masses)
        peak = float(exponents.max())
        tilted = np.exp(exponents - peak)
    total = float(tilted.sum())
    return tilted / total, peak + math.log(total)


def _power(
    spectrum: Shaped[np.ndarray, " frequencies"], count: int
) -> Shaped[np.ndarray, " frequencies"]:
    """spectrum^count; numpy's own complex power is ten times slower."""
    with np.errstate(divide="ignore", under="ignore", invalid="ignore"):
        powered = np.exp(count * np.log(spectrum))
    return np.where(spectrum == 0, 0, powered)


def _rounding(spectrum: Shaped[np.ndarray, " frequencies"], counts: Sequence[int], n: int) -> float:
    """What each output may be off by: as |F| ≤ 1, |∏F^c|/|F_k| is at most |∏F^c|^(1 − 1/c_k)."""
    once = (4 * math.log2(n) + 8) * _EPS
    size = np.minimum(np.abs(spectrum), 1.0)
    with np.errstate(under="ignore"):
        powers = sum(count * float(np.mean(size ** (1 - 1 / count))) for count in counts)
    return 2 * once * (powers + float(size.mean()))


def _moments(parts: Sequence[tuple[Grid, int]]) -> tuple[float, float]:
    mean = variance = 0.0
    for grid, count in parts:
        weights = grid.masses / grid.masses.sum()
        centre = float(weights @ grid.losses)
        mean += count * centre
        variance += count * float(weights @ (grid.losses - centre) ** 2)
    return mean, variance


def _log_moments(
    parts: Sequence[tuple[Grid, int]], lambdas: Float[np.ndarray, " lambdas"]
) -> Float[np.ndarray, " lambdas"]:
    """K(λ) = Σ count·log Σ p_i·e^{λ·L_i}, rounded up."""
    total = np.zeros(len(lambdas))
    for grid, count in parts:
        with np.errstate(divide="ignore", under="ignore"):
            exponents = lambdas[:, None] * grid.losses + np.log(grid.masses)
            peak = exponents.max(axis=1, keepdims=True)
            once = peak[:, 0] + np.log(np.exp(exponents - peak).sum(axis=1))
        total += count * (once + 1e-14 * (1 + np.abs(once)))
    return total


def fast_length(least: int) -> int:
    """The smallest 2^k or 3·2^k that is not below ``least``."""
    power = 1 << max(3, (least - 1).bit_length())
    return power * 3 // 4 if power * 3 // 4 >= least else power
