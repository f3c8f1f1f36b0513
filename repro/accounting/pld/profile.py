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
from repro.typing import Float

_NARROW = 0.25  # below this μ the two Mills ratios nearly cancel, and the drop is integrated
_BULK = -5.0  # left of it the normal tail is close to 1 and a Mills ratio would be large
_LARGE = 30.0  # e^−30 is below the rounding of 1 + …


@dataclass(frozen=True)
class Step:
    """One Gaussian step: noise multiplier σ (noise ÷ sensitivity), sample rate q in (0, 1]."""

    sigma: float
    rate: float = 1.0

    @property
    def mu(self) -> float:
        return 1 / self.sigma

    def range(self, tail: float) -> tuple[float, float]:
        """(low, high): losses of ``remove`` beyond which κ is at most ``tail``.

        δ_G(a) ≤ 1 − Φ(a/μ − μ/2) ≤ e^{−x²/2} at a = μ(x + μ/2).
        """
        x = math.sqrt(-2 * math.log(tail))
        a = self.mu * (x + self.mu / 2)
        return -abs(_mixed(-a, self.rate)), _mixed(a, self.rate)

    def remove(self, epsilon: Float[np.ndarray, " losses"]) -> Float[np.ndarray, " losses"]:
        """κ_remove at losses ε (m,), any sign → (m,)."""
        log_c = _unmixed(epsilon, self.rate)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            away = np.abs(log_c)
            kappa = self.rate * _delta(self.mu, away) * np.exp(np.minimum(log_c, 0.0))
        return np.where(np.isfinite(log_c), kappa, 0.0)

    def add(self, epsilon: Float[np.ndarray, " losses"]) -> Float[np.ndarray, " losses"]:
        """κ_add at losses ε (m,), any sign → (m,): y·κ_remove(1/y)."""
        other = self.remove(-epsilon)
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            return np.where(other > 0, np.exp(epsilon + np.log(other)), 0.0)


def _mixed(a: float, rate: float) -> float:
    """log(1 + q(e^a − 1)), the loss of the sampled step where the Gaussian one has a."""
    if a > _LARGE:
        return a + math.log(rate) + math.log1p((1 - rate) / rate * math.exp(-a))
    return math.log1p(rate * math.expm1(a)) if rate < 1 else a


def _unmixed(epsilon: Float[np.ndarray, " losses"], rate: float) -> Float[np.ndarray, " losses"]:
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


def _delta(mu: float, a: Float[np.ndarray, " losses"]) -> Float[np.ndarray, " losses"]:
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
