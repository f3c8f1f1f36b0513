r"""Exact accounting of Gaussian releases: no Rényi order, no loss.

A Gaussian release with sensitivity Δ and noise σ is (ε, δ)-DP exactly when

    δ ≥ Φ(μ/2 − ε/μ) − e^ε·Φ(−μ/2 − ε/μ),    μ = Δ/σ

(Balle and Wang 2018, arXiv 1805.06530, Theorem 8), and releases compose into one with
μ = √Σμᵢ² (Dong, Roth, Su 2022, arXiv 1905.02383, Corollary 3.3).
"""

from __future__ import annotations

import math

import numpy as np

from repro.accounting import checks
from repro.accounting.checks import Number
from repro.errors import InputError
from repro.shapes import Float

_NARROW = 0.25  # below this μ the two terms nearly cancel, and their difference is integrated
_HALVINGS = 200
_UP = 1 + 1e-12
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


def compose_mu(sigma: Number, sensitivity: Number, rounds: Number) -> float:
    """μ of ``rounds`` releases with noise ``sigma`` on a query of L2 ``sensitivity``."""
    sigma = checks.non_negative("sigma", sigma)
    sensitivity = checks.non_negative("sensitivity", sensitivity)
    times = checks.count("rounds", rounds)
    if times == 0 or sensitivity == 0:
        return 0.0
    return math.inf if sigma == 0 else sensitivity / sigma * math.sqrt(checks.as_float(times))


def gaussian_epsilon(sigma: Number, sensitivity: Number, rounds: Number, delta: Number) -> float:
    """Exact ε, rounded up, of ``rounds`` Gaussian releases at ``delta`` in (0, 1).

    sigma: standard deviation of the noise per coordinate; sensitivity: L2, same unit as sigma.
    Edge cases: no rounds or no sensitivity → 0; σ = 0 → ∞.
    """
    return epsilon_of_mu(compose_mu(sigma, sensitivity, rounds), delta)


def epsilon_of_mu(mu: Number, delta: Number) -> float:
    """Smallest ε ≥ 0, rounded up, with μ-Gaussian DP ⇒ (ε, δ)-DP."""
    mu = checks.real("mu", mu, lambda x: x >= 0, "a number, 0 or above")
    delta = checks.delta(delta)
    if mu == 0:
        return 0.0
    target = math.log(delta)
    if log_delta_of_mu(mu, 0.0) <= target:
        return 0.0
    # δ(ε) ≤ Φ(μ/2 − ε/μ) ≤ e^{−(ε/μ − μ/2)²/2} beyond ε = μ²/2, which gives the upper end.
    low, high = 0.0, mu * (mu / 2 + math.sqrt(-2 * target))
    if not math.isfinite(high):
        return math.inf
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if log_delta_of_mu(mu, middle) <= target:
            high = middle
        else:
            low = middle
    return high * _UP


def log_delta_of_mu(mu: float, epsilon: float) -> float:
    """log of the exact δ of μ-Gaussian DP at ``epsilon`` ≥ 0 (μ > 0), rounded up.

    With x = ε/μ − μ/2, y = x + μ and the Mills ratio m = (1 − Φ)/φ, e^ε·φ(y) = φ(x), so
    δ = φ(x)·(m(x) − m(y)): neither e^ε nor a far tail of Φ is ever formed.
    """
    x = epsilon / mu - mu / 2
    y = epsilon / mu + mu / 2
    if x < -5:
        # 1 − Φ(x) is close to 1 there, while m(x) would overflow.
        phi = math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        return math.log(0.5 * math.erfc(x / math.sqrt(2)) - phi * _mills(y)) + 1e-13
    drop = mills_drop(np.array([x]), mu)[0] if mu <= _NARROW else _mills(x) - _mills(y)
    difference = float(drop)
    if difference <= 0:  # beyond double precision: m(x) − m(y) ≤ m(x)
        difference = _mills(x)
    return -x * x / 2 - math.log(2 * math.pi) / 2 + math.log(difference) + 1e-13 * (1 + x * x)


def gaussian_sigma(epsilon: Number, sensitivity: Number, rounds: Number, delta: Number) -> float:
    """Smallest σ, rounded up, for which ``rounds`` releases are (ε, δ)-DP; 0 if none is needed."""
    target = checks.positive("epsilon", epsilon)
    unit = compose_mu(1.0, sensitivity, rounds)
    if unit == 0:
        return 0.0
    if unit == math.inf:
        many = checks.as_float(checks.count("rounds", rounds)) == math.inf
        name, value = ("rounds", rounds) if many else ("sensitivity", sensitivity)
        raise InputError(name, value, "less: no finite noise is enough")
    sigma = unit / _largest_mu(target, checks.delta(delta))
    if sigma == math.inf:
        raise InputError("epsilon", epsilon, "more: no finite noise is enough")
    more = _UP - 1.0  # doubled each time: at the edge of double precision one rounding is far more
    while gaussian_epsilon(sigma, sensitivity, rounds, delta) > target:
        sigma *= 1.0 + more
        more *= 2.0
    return sigma


def _largest_mu(epsilon: float, delta: float) -> float:
    """The largest μ, to 1e-13, that is (ε, δ)-DP: δ rises with μ, so its logarithm is bisected."""
    target = math.log(delta)
    low = high = 0.0
    while log_delta_of_mu(math.exp(low), epsilon) > target:
        low -= 2.0
    while log_delta_of_mu(math.exp(high), epsilon) <= target:
        high += 2.0
    while high - low > 1e-13 * max(1.0, abs(low)):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        if log_delta_of_mu(math.exp(middle), epsilon) <= target:
            low = middle
        else:
            high = middle
    return math.exp(low)


def classical_sigma(epsilon: Number, sensitivity: Number, delta: Number) -> float:
    """σ = Δ·√(2 ln(1.25/δ))/ε (Dwork and Roth 2014, Theorem A.1): one release, and ε < 1 only.

    For comparison: the paper's code uses it at ε = 6, outside its proof.
    """
    target = checks.positive("epsilon", epsilon)
    return checks.positive("sensitivity", sensitivity) * _classical(delta) / target


def classical_epsilon(sigma: Number, sensitivity: Number, delta: Number) -> float:
    """The ε the classical formula claims for one release; proved only where it is below 1."""
    noise = checks.positive("sigma", sigma)
    return checks.positive("sensitivity", sensitivity) * _classical(delta) / noise


def basic_composition(epsilon: Number, delta: Number, rounds: Number) -> tuple[float, float]:
    """(T·ε, T·δ): what summing budgets gives (Dwork and Roth 2014, Theorem 3.16)."""
    times = checks.as_float(checks.count("rounds", rounds))
    return times * checks.epsilon(epsilon), times * checks.delta(delta)


def _classical(delta: Number) -> float:
    delta = checks.delta(delta)
    ratio = 1.25 / delta  # ∞ for a subnormal δ
    log = math.log(ratio) if ratio < math.inf else math.log(1.25) - math.log(delta)
    return math.sqrt(2 * log)


def _mills(x: float) -> float:
    """m(x) = (1 − Φ(x))/φ(x) for x ≥ −40."""
    return float(mills(np.array([x]))[0])


def mills(x: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """m(x) = (1 − Φ(x))/φ(x), elementwise, for x ≥ −37."""
    from scipy.special import erfcx  # here, so that importing the accountant stays cheap

    return math.sqrt(math.pi / 2) * erfcx(x / math.sqrt(2))


def mills_drop(x: Float[np.ndarray, " points"], mu: float) -> Float[np.ndarray, " points"]:
    """m(x) − m(x + μ) for small μ, as the integral of −m'(s) = 1 − s·m(s) > 0; x (m,) → (m,)."""
    s = x[:, None] + mu * (_NODES + 1) / 2
    # 1 − s·m(s) cancels for large s; there the asymptotic series of the Mills ratio is exact.
    r = 1 / np.maximum(s * s, 1.0)
    tail = r * (1 - r * (3 - r * (15 - r * (105 - r * (945 - r * (10395 - r * 135135))))))
    return mu / 2 * (np.where(s > 30, tail, 1 - s * mills(s)) @ _WEIGHTS)
