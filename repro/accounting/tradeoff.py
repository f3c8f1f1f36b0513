r"""The trade-off curve of what was released, and the μ of Gaussian DP that describes it.

Whoever wants to know whether a record took part makes two kinds of error: false positives (rate
α) and false negatives. f(α) is the least false-negative rate that is left to anybody (Dong, Roth,
Su 2022, arXiv 1905.02383, Definition 2.1). A mechanism is μ-Gaussian DP where f ≥ G_μ,

    G_μ(α) = Φ(Φ⁻¹(1 − α) − μ),

which is so exactly when it is (ε, δ_μ(ε))-DP for every ε ≥ 0 (their Corollary 2.13).

One (ε, δ) is one tangent of the curve; many of them are a polygon below it, here with (ε, δ) from
the accountant, so that nothing printed is above the truth. Unsampled Gaussian noise has f = G_μ.
Of sampled steps μ is the smallest for which G_μ lies below the polygon wherever both error rates
are at least ``LEAST_RATE``; without that cut μ would be that of a record drawn at every step, an
outcome of probability q^T.

The regret says how much is lost by telling μ alone: the smallest κ with f(α + κ) − κ ≤ G_μ(α) for
all α (Gomez et al. 2025, arXiv 2503.10945, after the Δ-divergence of Kaissis et al. 2024, arXiv
2406.08918).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from repro.accounting import checks
from repro.accounting.composition import elementary, gaussian_mu
from repro.accounting.events import NonPrivateEvent, PrivacyEvent
from repro.accounting.gaussian import log_delta_of_mu
from repro.accounting.pld import PLDAccountant
from repro.shapes import Float

LEAST_RATE = 1e-10  # that of the package of arXiv 2503.10945
_FARTHEST = 1e-12  # δ at the last ε of a polygon
_TANGENTS = 257  # of a polygon: it then lies below the curve by less than 0.1 % of μ
_UP = 1 + 1e-9

Tangents = Float[np.ndarray, "tangents 2"]


@dataclass(frozen=True)
class TradeOff:
    """What anybody can find out, at most.

    mu: f ≥ G_mu wherever both error rates are at least ``least_rate`` (0: everywhere). regret: see
    the module. tangents: (m, 2) of rising ε and its δ, of which the polygon is made; None where
    f is G_mu itself.
    """

    mu: float
    regret: float
    least_rate: float
    tangents: Tangents | None = None

    def false_negative_rate(self, alpha: float) -> float:
        """At most f(α): the least false-negative rate at false-positive rate α in [0, 1]."""
        alpha = checks.real("alpha", alpha, lambda x: 0 <= x <= 1, "a rate from 0 to 1")
        if self.tangents is None:
            return gaussian_curve(self.mu, alpha)
        epsilon, delta = self.tangents.T
        # f_{ε,δ}(α), both branches: Wasserman and Zhou 2010, Theorem 2.4.
        with np.errstate(over="ignore"):
            falling = 1 - delta - np.exp(epsilon) * alpha
        rising = np.exp(-epsilon) * (1 - delta - alpha)
        return max(0.0, float(falling.max()), float(rising.max()))


def gaussian_curve(mu: float, alpha: float) -> float:
    """G_μ(α) = Φ(Φ⁻¹(1 − α) − μ) (Dong, Roth, Su 2022, equation 6), for μ ≥ 0 and α in [0, 1]."""
    from scipy.special import ndtr, ndtri  # here, so that importing the accountant stays cheap

    return 0.0 if mu == math.inf else float(ndtr(-ndtri(alpha) - mu))


def trade_off(counts: Mapping[PrivacyEvent, int], relation: str, unit: str) -> TradeOff:
    """The curve of ``counts``: event → how often it was composed.

    Without noise μ is ∞ and f is 0. Raises ``InputError`` for what has no privacy loss distribution
    here: see ``PLDAccountant``.
    """
    relation = checks.relation(relation)
    leaves = elementary(counts)
    if any(isinstance(leaf, NonPrivateEvent) for leaf in leaves):
        return TradeOff(math.inf, 0.0, 0.0)
    if (mu := gaussian_mu(leaves, relation)) is not None:
        return TradeOff(mu, 0.0, 0.0)
    accountant = PLDAccountant(relation, unit)
    for event, times in leaves.items():
        accountant.compose(event, times)
    farthest, _ = accountant.epsilon(_FARTHEST)
    if farthest in (0.0, math.inf):
        return TradeOff(farthest, 0.0, 0.0)
    epsilons = np.linspace(0.0, farthest, _TANGENTS)
    tangents = np.column_stack([epsilons, accountant.profile(epsilons)])
    mu = _smallest_mu(tangents)
    return TradeOff(mu, _regret(mu, tangents), LEAST_RATE, tangents)


def _smallest_mu(tangents: Tangents) -> float:
    """The smallest μ with G_μ below the polygon, from rate ``LEAST_RATE`` on; rounded up.

    G_μ is convex and the polygon's sides are straight, so it is enough at the corners; the curves
    are symmetric, so those with α ≤ f(α) are. At (α, β) it takes μ = Φ⁻¹(1 − α) − Φ⁻¹(β).
    """
    from scipy.special import ndtri

    y, delta = np.exp(tangents[:, 0]), tangents[:, 1]
    kept = _lower_hull(y, delta)
    corners = -np.diff(delta[kept]) / np.diff(y[kept])  # tangents i and i + 1 meet there
    alpha = np.append(corners[corners > LEAST_RATE], LEAST_RATE)
    # 1 − β, of the tangent that is highest there, without cancellation.
    missed = (delta + y * alpha[:, None]).min(axis=1)
    inside = missed < 1
    mus = ndtri(missed[inside]) - ndtri(alpha[inside])
    return max(float(mus.max(initial=0.0)) * _UP, 0.0)


def _lower_hull(x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]) -> list[int]:
    """Indices of the points of the lower convex hull; x rising. (Andrew 1979.)"""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) > 1:
            a, b = hull[-2:]
            # b stays where it lies below the line from a to i.
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return hull


def _regret(mu: float, tangents: Tangents) -> float:
    """max over ε ≥ 0 of (δ_μ(ε) − δ(ε))/(1 + e^ε).

    f(α + κ) − κ = sup_ε 1 − δ(ε) − e^ε·α − κ(1 + e^ε), so by duality κ is enough exactly when
    δ(ε) + κ(1 + e^ε) ≥ δ_μ(ε) for all ε; at −ε the quotient is that at ε (both are symmetric).
    """
    gaps = [
        (math.exp(log_delta_of_mu(mu, epsilon)) - delta) / (1 + math.exp(epsilon))
        for epsilon, delta in tangents.tolist()
        if epsilon < 700 and mu > 0
    ]
    return max(0.0, *gaps) if gaps else 0.0
