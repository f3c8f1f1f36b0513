r"""Planning one composition: where its loss lies, how far to tilt it, how fine a grid it needs.

Read off an *outline* of each step's loss: some hundred points, tilted by every λ of a wide scan.
Nothing that is proved rests on it: a plan that leads astray costs tightness only, since
``convolve`` bounds what it leaves out with the grids themselves.

With K(λ) = Σ count·log E[e^{λL}] the Chernoff bound P(ΣL > ε) ≤ e^{K(λ) − λε} gives the tilt
(the λ of the smallest ε at δ) and the window. A grid of spacing h that connects dots splits each
loss between its two neighbours, at distances f·h and (1 − f)·h, and keeps E[e^{−L}]: it adds the
variance f(1 − f)h², which raises K(λ) by λ(λ + 1)/2 times that, and ε by (λ + 1)/2 times. λ is
then about the slope −d log δ/dε, and where a grid has been summed, it is better known from that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from repro.accounting.pld.profile import Step
from repro.shapes import Float

_WIDE = np.geomspace(1e-9, 1e12, 64)
_CLOSE = np.geomspace(1 / 256, 256, 72)  # around the best of those
_TAIL = 1e-4  # share of δ given up to losses above a step's grid, and to sums above the window
_TILTED_TAIL = 1e-7  # of the tilted sum, on each side of the window
_WRAPPED = 1e-4  # and tilted back, a share of δ
_NEAR = 1e-3  # a tilt that is as good as the best to this much is as good

SMALLEST_DELTA = 1e-280  # about which δ is asked, where nothing smaller can be

Parts = Sequence[tuple[Step, int]]
Lambdas = Float[np.ndarray, " lambdas"]
_Outline = tuple[np.ndarray, np.ndarray, int]  # losses, log masses, count


@dataclass(frozen=True)
class ConvolutionPlan:
    """How to add up the losses of steps in one direction.

    low, high: ends of the window; tilt: θ; above: the λ > 0 that bounds P(sum > high) best;
    aside: shifts s of the tilt that bound the tilted sum's tails, below and above; epsilon and
    delta: what is asked for, one of them Chernoff's guess; needed: points the window needs.
    """

    low: float
    high: float
    tilt: float
    above: float
    aside: tuple[float, float]
    epsilon: float
    delta: float
    needed: int

    @property
    def around(self) -> tuple[float, float]:
        """The λ below and above the tilt, ``aside`` from it."""
        return self.tilt - self.aside[0], self.tilt + self.aside[1]

    @property
    def tail(self) -> float:
        """Mass at an infinite loss that may be given away."""
        return self.delta * _TAIL

    @property
    def least(self) -> float:
        """A loss of one step that takes any sum out of the window, to below it."""
        return 2 * (self.low - self.high)

    def spacing(self, points: int) -> float:
        return (self.high - self.low) / (points - 4)

    def shifted(self, by: float) -> ConvolutionPlan:
        """The same for a sum that is ``by`` larger."""
        return replace(self, low=self.low + by, high=self.high + by)

    def gentler(self) -> ConvolutionPlan:
        """The same window, tilted a quarter as much (the shifts still lead to the same λ)."""
        below, above = self.around
        less = self.tilt / 4
        return replace(self, tilt=less, aside=(less - min(below, less / 2), above - less))


@dataclass(frozen=True)
class Guess:
    """ε as found on a grid, and the slope −d log δ/dε there."""

    epsilon: float
    slope: float


def for_delta(
    parts: Parts, adding: bool, delta: float, tolerance: float, most: int, guess: Guess | None
) -> ConvolutionPlan:
    """The plan for ε at ``delta``: points enough for a relative ``tolerance``, at most ``most``.

    Without a guess, Chernoff's bound is it; where single jumps decide that may be five times ε.
    """
    outlines = _outlines(parts, adding, delta * _TAIL)
    wide = (_log_moment(outlines, _WIDE) - math.log(delta)) / _WIDE
    lambdas = _WIDE[int(np.argmin(wide))] * _CLOSE
    moments = _log_moment(outlines, lambdas)
    if guess is None:
        bounds = (moments - math.log(delta)) / lambdas
        tilt = _smallest(bounds, lambdas, _NEAR * abs(float(bounds.min())))
        guess = Guess(float(bounds.min()), tilt)
    else:
        tilt = _smallest(moments - lambdas * guess.epsilon, lambdas, _NEAR)
    allowed = tolerance * guess.epsilon * 2 / (guess.slope + 1)
    # No loss is ever moved by more than h, so no sum by more than count times that.
    finest = tolerance * guess.epsilon / sum(count for _, count in parts)
    return _plan(outlines, lambdas, tilt, guess.epsilon, delta, allowed, finest, most)


def _smallest(values: Lambdas, lambdas: Lambdas, near: float) -> float:
    """The smallest λ that is about as good as the best: larger ones may lead to far jumps."""
    return float(lambdas[int(np.argmax(values <= float(values.min()) + near))])


def for_epsilon(
    parts: Parts, adding: bool, epsilon: float, tolerance: float, most: int, known: float
) -> ConvolutionPlan:
    """The plan for δ at ``epsilon``: points enough for a relative ``tolerance`` of δ.

    known: a δ as found on a grid, at most 1; what may be given away is a share of it.
    """
    delta = min(1e-10, known)
    for _ in range(3):  # what may be cut off depends on δ, and δ on that a little
        outlines = _outlines(parts, adding, delta * _TAIL)
        wide = _log_delta(outlines, _WIDE, epsilon)
        wide = np.maximum(wide, math.log(SMALLEST_DELTA))
        lambdas = _WIDE[int(np.argmin(wide))] * _CLOSE
        bounds = _log_delta(outlines, lambdas, epsilon)
        bounds = np.maximum(bounds, math.log(SMALLEST_DELTA))
        smallest = min(float(bounds.min()), math.log(0.5))
        delta = min(math.exp(smallest), known)
    tilt = _smallest(bounds, lambdas, _NEAR)
    allowed = tolerance * 2 / (tilt * (tilt + 1))
    return _plan(outlines, lambdas, tilt, epsilon, delta, allowed, 0.0, most)


def _outlines(parts: Parts, adding: bool, tail: float) -> list[_Outline]:
    every = sum(count for _, count in parts)
    found = []
    for step, count in parts:
        losses, logs = step.outline(tail / every)
        found.append((-losses, logs, count) if adding else (losses, logs + losses, count))
    return found


def _log_delta(outlines: Sequence[_Outline], lambdas: Lambdas, epsilon: float) -> Lambdas:
    """log of e^{K(λ) − λε}·λ^λ/(1 + λ)^{1+λ}, a bound on δ for every λ.

    The last factor is the largest (1 − e^{−x})·e^{−λx} (Balle et al. 2020, arXiv 1905.09982). With
    Chernoff's 1 in its place the best λ goes to 0 where ε is below the mean loss, and with it all
    that a plan is made of.
    """
    gain = lambdas * np.log(lambdas) - (1 + lambdas) * np.log1p(lambdas)
    return _log_moment(outlines, lambdas) - lambdas * epsilon + gain


def _log_moment(outlines: Sequence[_Outline], lambdas: Lambdas) -> Lambdas:
    """K(λ)."""
    total = np.zeros(len(lambdas))
    for losses, logs, count in outlines:
        exponents = lambdas[:, None] * losses + logs
        peak = exponents.max(axis=1)
        with np.errstate(under="ignore"):
            total += count * (peak + np.log(np.exp(exponents - peak[:, None]).sum(axis=1)))
    return total


def _plan(
    outlines: Sequence[_Outline],
    lambdas: Lambdas,
    tilt: float,
    epsilon: float,
    delta: float,
    allowed: float,
    finest: float,
    most: int,
) -> ConvolutionPlan:
    """The window around ``epsilon``; allowed: variance that the grids may add to the sum.

    finest: the spacing below which none is needed.
    """
    tails = (_log_moment(outlines, lambdas) - math.log(delta * _TAIL)) / lambdas
    slack = float(_log_moment(outlines, np.array([tilt]))[0]) + math.log(_TILTED_TAIL)
    # Tilted back at ε, a share of δ at most: where jumps are rare, Chernoff's bound is far above δ.
    slack = min(slack, tilt * epsilon + math.log(delta * _WRAPPED))
    up = (_log_moment(outlines, tilt + lambdas) - slack) / lambdas
    down = (slack - _log_moment(outlines, tilt - lambdas)) / lambdas
    above, higher, lower = int(np.argmin(tails)), int(np.argmin(up)), int(np.argmax(down))
    low = min(float(down[lower]), epsilon)
    # Tilted sums a little above the window wrap around to below ε, where they do no harm.
    high = max(float(tails[above]), float(up[higher]) - (epsilon - low) / 2, epsilon)
    pad = 0.01 * (high - low)
    aside = float(lambdas[lower]), float(lambdas[higher])
    window = low - pad, high + pad
    planned = ConvolutionPlan(*window, tilt, float(lambdas[above]), aside, epsilon, delta, most)
    points = next(
        points
        for points in (share << k for k in range(7, 64) for share in (2, 3))
        if points >= most
        or planned.spacing(points) <= finest
        or _added(outlines, tilt, planned.spacing(points)) <= allowed
    )
    return replace(planned, needed=min(points, most))


def _added(outlines: Sequence[_Outline], tilt: float, h: float) -> float:
    """Variance that connecting dots of spacing ``h`` adds to the tilted sum.

    At least one loss's, anywhere between two dots: where jumps are rare, most tilted sums have
    none, but those that decide do.
    """
    added = h * h / 6
    for losses, logs, count in outlines:
        exponents = tilt * losses + logs
        with np.errstate(under="ignore"):
            weights = np.exp(exponents - exponents.max())
        share = np.mod(losses / h, 1.0)
        added += count * h * h * float(weights @ (share * (1 - share)) / weights.sum())
    return added
