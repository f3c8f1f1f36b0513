r"""Composition: the sum of independent losses, by FFT, with every error on the safe side.

Losses of composed steps add up, so their distributions are convolved. Before the transform each
distribution is tilted, p_i → p_i·e^{θ·L_i}/M(θ), and the result is tilted back (Keich 2005, J.
Comput. Biol. 12(4), "sFFT"): rounding errors are then relative to the part of the distribution
that decides ε, not to 1, and any δ can be asked for. What is left out is bounded and added:

- sums above the window's high end U, at most e^{K(λ) − λU} for any λ > 0 (Chernoff; K is the log
  moment generating function): counted as infinite loss. Sums below the window add nothing to δ(ε)
  for an ε above its low end. Both wrap around to other places, where they are more, not less;
  for a bound from below, what may have wrapped is subtracted.
- rounding: transforms of vectors of sum 1 are off by at most a few log₂(n)·2⁻⁵², and the c-th
  power of one by c times that and |F|^(c−1); the mean over frequencies is added to every mass.
  Where jumps are rare and of very different sizes no tilt leads to all that decide, and the same
  is done in extended precision (2⁻⁶³ where the machine has it), some five times slower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro.accounting.pld.grid import Grid
from repro.accounting.pld.plan import ConvolutionPlan, Lambdas
from repro.accounting.pld.profile import Losses
from repro.shapes import Shaped

_EPS = 2.0**-52
EXTENDED = bool(np.finfo(np.longdouble).eps < 1e-3 * _EPS)  # is there any?
_EXPONENT_LIMIT = 600.0

Spectrum = Shaped[np.ndarray, " frequencies"]


@dataclass(frozen=True)
class Sum:
    """Distribution of the composed loss, at ``losses`` (rising), from both sides.

    masses: at most this much more than the truth, above the window's low end; ``infinite``: mass
    at ∞. least: at most the truth, up to what wrapped around, whose mass beyond any ε is at most
    ``wrapped(ε)``.
    """

    losses: Losses
    masses: Losses
    infinite: float
    least: Losses
    added: Losses  # what of each mass is the allowance for rounding
    where: ConvolutionPlan
    outside: tuple[float, float]  # K at the λ of ``where.around``

    def allowance(self, epsilon: float) -> float:
        """How much of the mass above ``epsilon`` stands for rounding errors."""
        return float(self.added[self.losses > epsilon].sum())

    def wrapped(self, epsilon: float) -> float:
        """Most that sums outside the window may have put above ``epsilon`` ≥ its low end.

        All of those below it, and those above by more than from the low end to ε.
        """
        low, high = float(self.losses[0]), float(self.losses[-1])
        (down, up), tilt = self.where.aside, self.where.tilt
        under = self.outside[0] + down * low
        over = self.outside[1] - up * (high + epsilon - low)
        return math.exp(min(float(np.logaddexp(under, over)) - tilt * epsilon + 1e-9, 0.0))


def convolve(
    parts: Sequence[tuple[Grid, int]], where: ConvolutionPlan, *, extended: bool = False
) -> Sum:
    """Distribution of the sum of each grid's loss, ``count`` times; all grids share one h.

    extended: in ``numpy.longdouble``, if that is more than double precision here.
    """
    import scipy.fft  # numpy's own is in double precision before its version 2

    h = parts[0][0].h
    n = fast_length(int((where.high - where.low) / h) + 3)
    real, fft = (np.longdouble, scipy.fft) if extended else (np.float64, np.fft)
    eps = float(np.finfo(real).eps)
    spectrum = np.ones(n // 2 + 1, dtype=np.result_type(real, np.complex64))
    finite = log_moment = off = 0.0  # log P(no loss is infinite); K(tilt), and its rounding
    for grid, count in parts:
        tilted, once = _tilted(grid, real(where.tilt))
        log_moment += float(count * once)
        off += count * 8 * eps * (1 + abs(float(once)))
        around = np.zeros(-(-len(tilted) // n) * n, dtype=real)  # what is longer wraps around
        around[: len(tilted)] = tilted
        once_spectrum = fft.rfft(np.roll(around.reshape(-1, n).sum(axis=0), grid.first % n))
        spectrum *= _power(once_spectrum, count)
        finite += count * math.log1p(-min(grid.infinite * (1 + 4 * _EPS), 1 - _EPS))
    tilted = fft.irfft(spectrum, n).astype(np.float64)
    rounding = _rounding(spectrum, [count for _, count in parts], n, eps)
    start = math.floor(where.low / h)
    losses = h * np.arange(start, start + n)
    tilted = np.roll(tilted, -(start % n))
    back = np.minimum(log_moment - where.tilt * losses, _EXPONENT_LIMIT)
    wrong = off + 1e-12 * (1 + np.abs(back))
    with np.errstate(under="ignore"):
        untilt = np.exp(back + wrong)
        added = rounding * untilt
        masses = np.maximum(tilted, 0.0) * untilt + added
        least = np.maximum(tilted - rounding, 0.0) * np.exp(back - wrong)
    high = float(losses[-1])
    bounds = _log_moments(parts, np.array([where.above, *where.around]))
    beyond = math.exp(min(float(bounds[0]) - where.above * high, 0.0))
    # Far below where the tilt leads, the rounding added says nothing: no mass is above 1.
    return Sum(
        losses,
        np.minimum(masses, 1.0),
        -math.expm1(finite) + beyond,
        least,
        np.minimum(added, 1.0),
        where,
        (float(bounds[1]), float(bounds[2])),
    )


def _tilted(grid: Grid, tilt: np.floating) -> tuple[Shaped[np.ndarray, " losses"], np.floating]:
    """(masses·e^{tilt·L}/M, log M), in the precision of ``tilt``: sums to 1."""
    with np.errstate(divide="ignore", under="ignore"):
        losses = tilt.dtype.type(grid.h) * np.arange(grid.first, grid.first + len(grid.masses))
        exponents = tilt * losses + np.log(grid.masses.astype(tilt.dtype))
        peak = exponents.max()
        tilted = np.exp(exponents - peak)
    total = tilted.sum()
    return tilted / total, peak + np.log(total)


def _power(spectrum: Spectrum, count: int) -> Spectrum:
    """spectrum^count; numpy's own complex power is ten times slower."""
    with np.errstate(divide="ignore", under="ignore", invalid="ignore"):
        powered = np.exp(count * np.log(spectrum))
    return np.where(spectrum == 0, 0, powered)


def _rounding(spectrum: Spectrum, counts: Sequence[int], n: int, eps: float) -> float:
    """What each output may be off by: as |F| ≤ 1, |∏F^c|/|F_k| is at most |∏F^c|^(1 − 1/c_k)."""
    once = (4 * math.log2(n) + 64) * eps  # 64: for the exponents that tilting rounds
    size = np.minimum(np.abs(spectrum).astype(np.float64), 1.0)
    with np.errstate(under="ignore"):
        powers = sum(count * float(np.mean(size ** (1 - 1 / count))) for count in counts)
    return 2 * once * (powers + float(size.mean()))


def _log_moments(parts: Sequence[tuple[Grid, int]], lambdas: Lambdas) -> Lambdas:
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
