r"""Exact privacy profiles of one Gaussian step, sampled or not, in a form without cancellation.

A pair of distributions (P, Q) is known by δ(ε) = sup_S P(S) − e^ε·Q(S), for every real ε. With
y = e^ε, δ is convex in y, lies above the hinge max(1 − y, 0), and what matters is the rest,

    κ(y) = δ(log y) − max(1 − y, 0) ≥ 0,    κ(0) = 0,  κ(∞) = 0.

Gaussian, P = N(μ, 1), Q = N(0, 1): κ_G(ε) = δ_G(|ε|)·min(1, e^ε), δ_G as in
``repro.accounting.gaussian`` (Balle and Wang 2018, Theorem 8).

Poisson-sampled, P = (1−q)·N(0, 1) + q·N(μ, 1), Q = N(0, 1): the likelihood ratio of P to Q is
1 − q + q·(that of the Gaussian), so the same set S is best at y for the sampled pair and at
c = 1 + (y − 1)/q for the Gaussian one, and

    κ_remove(y) = q·κ_G(log c)  (0 where c ≤ 0),    κ_add(y) = y·κ_remove(1/y),

the second for the pair (Q, P). Removing a record is dominated by (P, Q), adding one by (Q, P)
(Zhu, Dong, Wang 2022, arXiv 2106.08567, Theorem 11), at every step of a composition (Theorem 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from repro.accounting.gaussian import mills, mills_drop
from repro.shapes import Float

_NARROW = 0.25  # below this μ the two Mills ratios nearly cancel, and the drop is integrated
_BULK = -5.0  # left of it the normal tail is close to 1 and a Mills ratio would be large
_LARGE = 30.0  # e^−30 is below the rounding of 1 + …
_OUTLINE = 1 / 32  # spacing of an outline's points, in deviations of the noise
_EPS = 2.0**-52

Losses = Float[np.ndarray, " losses"]
PerCell = Float[np.ndarray, " cells"]  # a number a cell
Points = Float[np.ndarray, " points"]


@dataclass(frozen=True)
class Cells:
    """Sets of outcomes of one step, each with all its outcomes merged into one.

    losses: log(P/Q) of each cell, off by at most ``error``; masses under Q and under P, rounded
    down.
    """

    losses: PerCell
    error: PerCell
    plain: PerCell
    mixed: PerCell


@dataclass(frozen=True)
class Step:
    """One Gaussian step: noise multiplier σ (noise ÷ sensitivity), sample rate q in (0, 1]."""

    sigma: float
    rate: float = 1.0

    @property
    def mu(self) -> float:
        return 1 / self.sigma

    def range(self, tail: float) -> tuple[float, float]:
        """(low, high): losses of ``remove`` beyond which κ, or that of ``add``, is ≤ ``tail``.

        δ_G(a) ≤ 1 − Φ(x) at a = μ(x + μ/2). Above, κ_remove is q times that; below, at −a,
        κ_add = y·q·e^{−a}·δ_G(a) ≤ δ_G(a), and κ_remove is less.
        """
        x = np.array([_deviations(tail), _deviations(tail / self.rate)])
        low, high = _mixed(self.mu * (x + self.mu / 2) * [-1, 1], self.rate)
        return float(low), float(high)

    def outline(self, tail: float) -> tuple[Points, Points]:
        """(losses of ``remove``, log of Q's masses) at some hundred points; not rounded.

        Trapezoidal in units of the noise, which is exact to double precision for a Gaussian;
        only what is within ``tail`` of 0 or of μ, and with losses that end where ``range`` does.
        """
        x = _deviations(tail)
        near = np.arange(-x, x, _OUTLINE)
        if self.mu > 2 * x:
            z = np.concatenate([near, self.mu + near])
        else:
            z = np.arange(-x, self.mu + x, _OUTLINE)
        losses = _mixed(self.mu * (z - self.mu / 2), self.rate)
        losses = np.minimum(losses, self.range(tail)[1])
        return losses, -z * z / 2 + math.log(_OUTLINE / math.sqrt(2 * math.pi))

    def cells(self, edges: Float[np.ndarray, " edges"]) -> Cells:
        """What lies between losses ``edges`` (m,), rising: m + 1 cells, the outer two open.

        The loss of ``remove`` is above an edge where the noise z is above (log c)/μ + μ/2.
        """
        log_c = _unmixed(edges, self.rate)
        z = np.concatenate([[-np.inf], log_c / self.mu + self.mu / 2, [np.inf]])
        plain, off = _between(z)
        shifted, off_shifted = _between(z - self.mu)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = shifted / plain
            losses = _mixed(np.log(ratio), self.rate)
            moved = self.rate * (ratio * off + off_shifted) / plain
            error = 2 * moved / (1 + self.rate * (ratio - 1)) + 4 * _EPS * np.abs(losses)
        mixed = (1 - self.rate) * plain + self.rate * shifted
        off_mixed = (1 - self.rate) * off + self.rate * off_shifted
        return Cells(losses, error, plain - off, mixed - off_mixed)

    def remove(self, epsilon: Losses) -> Losses:
        """κ_remove at losses ε (m,), any sign → (m,)."""
        log_c = _unmixed(epsilon, self.rate)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            away = np.abs(log_c)
            kappa = self.rate * _delta(self.mu, away) * np.exp(np.minimum(log_c, 0.0))
        return np.where(np.isfinite(log_c), kappa, 0.0)

    def add(self, epsilon: Losses) -> Losses:
        """κ_add at losses ε (m,), any sign → (m,): y·κ_remove(1/y)."""
        other = self.remove(-epsilon)
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            return np.where(other > 0, np.exp(epsilon + np.log(other)), 0.0)


def _deviations(tail: float) -> float:
    """x ≥ 1 with 1 − Φ(x) ≤ ``tail``, if tail is less than 0.158."""
    from scipy.special import ndtri  # here, so that importing the accountant stays cheap

    return max(1.0, -float(ndtri(min(tail, 0.5))) * (1 + 1e-12))


def _mixed(a: Losses, rate: float) -> Losses:
    """log(1 + q(e^a − 1)), the loss of the sampled step where the Gaussian one has a."""
    if rate == 1:
        return a
    with np.errstate(under="ignore"):
        far = a + math.log(rate) + np.log1p((1 - rate) / rate * np.exp(-np.maximum(a, 0.0)))
        near = np.log1p(rate * np.expm1(np.minimum(a, _LARGE)))
        return np.where(a > _LARGE, far, near)


def _between(z: Float[np.ndarray, " edges"]) -> tuple[PerCell, PerCell]:
    """(P(z_i < N(0, 1) < z_{i+1}), how far that may be off), from the tail that is smaller."""
    from scipy.special import ndtr  # here, so that importing the accountant stays cheap

    right = z[:-1] > 0
    near = np.where(right, -z[:-1], z[1:])
    far = np.where(right, -z[1:], z[:-1])
    with np.errstate(under="ignore"):
        tail = ndtr(near)
        mass = tail - ndtr(far)
    size = np.minimum(np.abs(near), 40.0)  # beyond, the tail is 0 in double precision
    return mass, (8 + 2 * size * size) * _EPS * tail


def _unmixed(epsilon: Losses, rate: float) -> Losses:
    """log c = log(1 + (e^ε − 1)/q), its inverse; −∞ where the sampled step has no such loss."""
    if rate == 1:
        return epsilon
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        c = np.expm1(np.minimum(epsilon, _LARGE)) / rate  # c − 1
        near = np.log1p(np.maximum(c, -1.0))
        # Close to the smallest loss, log(1 − q), c is the small difference from it.
        above = np.expm1(np.minimum(epsilon - math.log1p(-rate), 700.0))
        low = math.log1p(-rate) - math.log(rate) + np.log(np.maximum(above, 0.0))
        high = epsilon - math.log(rate) + np.log1p(-(1 - rate) * np.exp(-epsilon))
    return np.where(epsilon > _LARGE, high, np.where(c < -0.5, low, near))


def _delta(mu: float, a: Losses) -> Losses:
    """δ_G(a) for a ≥ 0 (∞ → 0): φ(x)·(m(x) − m(x + μ)), m the Mills ratio, x = a/μ − μ/2."""
    x = np.minimum(a / mu - mu / 2, 50.0)
    phi = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    right = np.maximum(x, _BULK)
    if mu > _NARROW:
        drop = mills(right) - mills(right + mu)
        # Beyond double precision: m(x) − m(y) ≤ m(x).
        drop = np.where(drop > 0, drop, mills(right))
    else:
        drop = mills_drop(right, mu)
    from scipy.special import ndtr  # here, so that importing the accountant stays cheap

    # There μ > 10; x + μ ≥ μ/2 is far to the right.
    left = ndtr(-x) - phi * mills(x + mu) if mu > -2 * _BULK else phi
    return np.where(x < _BULK, left, phi * drop)
