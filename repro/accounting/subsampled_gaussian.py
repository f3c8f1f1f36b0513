r"""Rényi divergence of the Poisson-subsampled Gaussian, at any order, never below the truth.

One DP-SGD step with sample rate q and noise multiplier σ is, in the worst case,
P = (1−q)·N(0, σ²) + q·N(1, σ²) against Q = N(0, σ²). Of the two directions D_α(P‖Q) is the
larger at every order (Mironov, Talwar, Zhang 2019, arXiv 1908.10530, Theorems 4 and 5), so

    RDP(α) = log A_α / (α − 1),    A_α = E_{x∼N(0,1)}[(1 + u(x))^α],
    u(x) = q·(e^{t(x)} − 1),       t(x) = x/σ − 1/(2σ²),    E[u] = 0.

Because E[u] = 0, A_α − 1 = E[g(u)] with g(u) = (1+u)^α − 1 − αu, which convexity makes ≥ 0. So
the tiny A_α − 1 of a small q is a sum of non-negative terms: nothing cancels, and one formula
serves integer and fractional orders alike.

The integrand is analytic in the strip |Im x| < πσ (the nearest zero of 1 + u), where the
trapezoidal rule converges geometrically: with step h its error is of the order of
e^{d²/2 − 2πd/h} for any d inside the strip (Trefethen and Weideman 2014, Theorem 5.1). The step
is chosen to make that below e^−38; what remains is floating-point error, bounded by the
conditioning of the exponents and added on top, so results are rounded outward.
"""

from __future__ import annotations

import math

import numpy as np

from repro.accounting import checks
from repro.accounting.checks import Number, Orders
from repro.shapes import Float

_EPS = 2.0**-52
_BASE_ALLOWANCE = 5e-12  # rounding of some hundred sums, exponentials and logarithms
_ALIASING_NATS = 38.0  # e^-38 ≈ 3e-17
_REACH = 10.0  # φ(10) ≈ e^-51: mass left out beyond the outermost peaks
_NEGLIGIBLE_NATS = 45.0  # parts of the integrand this far below its peak are skipped
_SHARED_POINTS = 60_000  # largest orders × points table evaluated at once
_SMALLEST_SIGMA = 0.04  # below, P and Q are 25 deviations apart: see _two_peaks
_FARTHEST_PEAK = 1e6  # α/σ beyond this: the unsampled bound is within 2σ²·log(1/q)/α of the truth
_SERIES_BELOW = 0.02  # |u|·max(α, 1) where g's power series takes over
_SERIES_TERMS = 10
_LINEAR_LIMIT = 600.0  # exponents above this are handled as logarithms

Points = Float[np.ndarray, " points"]


def rdp_poisson_gaussian(noise_multiplier: Number, sample_rate: Number, orders: Orders) -> Orders:
    """RDP of one Poisson-subsampled Gaussian release under add/remove.

    noise_multiplier: σ ÷ sensitivity, ≥ 0. sample_rate: q in [0, 1].
    orders: (m,) float64, each in (1, ∞). Returns (m,) float64, in nats.

    Accuracy: at most 1e-10 relative above the exact value and never below it, for q in
    [1e-5, 1], σ in [0.3, 100], α in [1.01, 4096]; a valid upper bound everywhere else.
    Edge cases: q = 0 → 0; q = 1 → α/(2σ²) (Mironov 2017, Corollary 3); σ = 0 → ∞.
    """
    sigma = checks.noise_multiplier(noise_multiplier)
    q = checks.sample_rate(sample_rate)
    orders = checks.orders(orders)
    if q == 0:
        return np.zeros_like(orders)
    unsampled = rdp_gaussian(sigma, orders)
    if q == 1 or not np.all(np.isfinite(unsampled)):
        return unsampled
    if sigma < _SMALLEST_SIGMA:
        return np.minimum(unsampled, _two_peaks(sigma, q, orders))
    result = unsampled.copy()
    near = orders / sigma <= _FARTHEST_PEAK
    if near.any():
        result[near] = _log_moments(sigma, q, orders[near]) / (orders[near] - 1)
    # The smallest float above 0 stands in for what underflows: never below the truth.
    # Where an integrand is beyond float64 there is no number: the unsampled bound holds.
    return np.maximum(np.fmin(result, unsampled), 5e-324)


def rdp_gaussian(noise_multiplier: float, orders: Orders) -> Orders:
    """RDP of an unsampled Gaussian release, α/(2σ²) (Mironov 2017, Corollary 3), rounded up."""
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        # Dividing twice keeps σ² from overflowing or underflowing on its own.
        exact = np.asarray(orders) / 2 / np.float64(noise_multiplier) / noise_multiplier
        return np.maximum(exact * (1 + 4 * _EPS), 5e-324)


def trapezoidal_step(sigma: float) -> float:
    """A step h, a dyadic number so that grid points are exact, with aliasing below e^−38.

    Solves d²/2 − 2πd/h ≤ −38 for the strip d = min(πσ, 4π). The whole strip counts: on its
    edge, where 1 + u has its zeros, the integrand still is bounded.
    """
    d = min(math.pi * sigma, 4 * math.pi)
    h = min(0.5, 2 * math.pi * d / (_ALIASING_NATS + d * d / 2))
    return math.floor(h * 4096) / 4096


def _log_moments(sigma: float, q: float, orders: Orders) -> Orders:
    """log A_α for each order, rounded outward."""
    step = trapezoidal_step(sigma)
    # g's mass lies between the peak of φ near 0 and that of φ·e^{αt} at α/σ (2/σ below order 2).
    first = math.floor(-_REACH / step)
    last = np.ceil((np.maximum(orders, 2) / sigma + _REACH) / step).astype(np.int64)
    result = np.empty_like(orders)
    by_size = np.argsort(orders)
    while by_size.size:
        widths = last[by_size] - first + 1
        fits = widths * np.arange(1, by_size.size + 1) <= _SHARED_POINTS
        some = by_size[: max(1, int(np.count_nonzero(fits)))]
        index = np.arange(first, last[some[-1]] + 1)
        if some.size == 1 and index.size > _SHARED_POINTS // 8:
            index = _worthwhile(sigma, q, float(orders[some[0]]), first, int(index[-1]), step)
        result[some] = _moments_on(sigma, q, orders[some], index * step, step)
        by_size = by_size[some.size :]
    return result


def _moments_on(sigma: float, q: float, orders: Orders, x: Points, step: float) -> Orders:
    """log A_α by the trapezoidal rule on the points ``x`` (n,), for ``orders`` (m,)."""
    alpha = orders[:, None]
    t, u, log1pu = _likelihood(sigma, q, x)
    log_phi = -0.5 * x * x
    exponent = alpha * log1pu + log_phi
    peak = exponent.max(axis=1, keepdims=True)
    shift = np.where(peak > _LINEAR_LIMIT, peak, 0.0)
    g = _excess(alpha, u, log1pu)
    with np.errstate(under="ignore", invalid="ignore"):
        # Where (1+u)^α is astronomically large, −1 − αu is below its rounding error.
        huge = alpha * log1pu > _LINEAR_LIMIT
        terms = np.where(huge, 0.0, g) * np.exp(log_phi - shift)
        terms = np.where(huge, np.exp(exponent - shift), terms)
        total = terms.sum(axis=1)
        weight = 0.5 * x * x + alpha * np.abs(t)
        conditioning = (terms * weight).sum(axis=1) / np.maximum(total, 5e-324)
    up = 1 + _BASE_ALLOWANCE + _EPS * conditioning
    mean = total * (step / math.sqrt(2 * math.pi)) * up
    shift = shift[:, 0]
    with np.errstate(divide="ignore"):
        return np.where(shift > 0, (shift + np.log(mean)) * (1 + 4 * _EPS), np.log1p(mean))


def _likelihood(sigma: float, q: float, x: Points) -> tuple[Points, Points, Points]:
    """t, u = q(e^t − 1) (clipped where e^t overflows) and log(1 + u), at the points x."""
    t = x / sigma - 0.5 / sigma / sigma
    u = q * np.expm1(np.minimum(t, 700.0))
    with np.errstate(over="ignore", under="ignore"):
        # Past the crossing log(1+u) = t + log q + log1p((1−q)e^−t/q) keeps every digit of t.
        late = t + math.log(q) + np.log1p((1 - q) / q * np.exp(-np.maximum(t, 1.0)))
    return t, u, np.where(t > 30, late, np.log1p(u))


def _excess(
    alpha: Float[np.ndarray, "orders 1"], u: Points, log1pu: Points
) -> Float[np.ndarray, "orders points"]:
    """g(u) = (1+u)^α − 1 − αu without cancellation; alpha (m, 1), u and log1pu (n,) → (m, n)."""
    a = alpha - 1
    with np.errstate(over="ignore", invalid="ignore"):
        # (1+u)^α − 1 − αu = (1+u)(e^{a·log(1+u)} − 1) − a·u is exact in a as α → 1.
        direct = (1 + u) * np.expm1(np.minimum(a * log1pu, _LINEAR_LIMIT)) - a * u
    small = np.abs(u) * alpha < _SERIES_BELOW
    if not small.any():
        return direct
    v = np.where(np.abs(u) < _SERIES_BELOW, u, 0.0)
    w = np.where(small, v, 0.0)
    series = np.ones_like(w)
    for k in range(_SERIES_TERMS, 2, -1):  # Horner: Σ_{k≥2} C(α,k)·u^k, from the last term on
        series = 1 + series * w * ((alpha - (k - 1)) / k)
    return np.where(small, 0.5 * alpha * a * (w * w) * series, direct)


def _worthwhile(
    sigma: float, q: float, order: float, first: int, last: int, step: float
) -> np.ndarray:
    """Grid indices in [first, last] where the integrand is within e^−45 of its peak.

    A coarse scan decides. φ·(1+u)^α has (log)'' ≥ −1, so no peak is narrower than a standard
    normal and a spacing of 1/2 cannot miss one.
    """
    stride = max(1, int(0.5 / step))
    cells = np.arange(first, last + stride, stride)
    x = cells * step
    _, u, log1pu = _likelihood(sigma, q, x)
    g = _excess(np.array([[order]]), u, log1pu)[0]
    with np.errstate(divide="ignore"):
        log_g = np.where(order * log1pu > _LINEAR_LIMIT, order * log1pu, np.log(g))
    height = log_g - 0.5 * x * x
    keep = height > height.max() - _NEGLIGIBLE_NATS
    keep = keep | np.roll(keep, 1) | np.roll(keep, -1)
    return (cells[keep][:, None] + np.arange(stride)).ravel()


def _two_peaks(sigma: float, q: float, orders: Orders) -> Orders:
    """RDP for tiny σ, where x ∼ Q and x ∼ P are apart: rounded up.

    With a = 1 − q and b = q·e^t the moment is E[(a + b)^α], split where a = b, at
    x₀ = 1/(2σ) + σ·log((1−q)/q). Since (1 + v)^α ≤ 1 + α·2^{α−1}·v for v in [0, 1],

        A_α ≤ a^α + α·2^{α−1}·a^{α−1}·q·Φ(x₀ − 1/σ)
              + E[b^α] + α·2^{α−1}·a·E[b^{α−1}; x > x₀],

    with E[b^k; x > x₀] = q^k·e^{k(k−1)/(2σ²)}·Φ(k/σ − x₀). What remains of the second terms is
    normal tails beyond 1/(2σ) ≥ 12 deviations (e^−78), against a^α and E[b^α].
    """
    from scipy.special import log_ndtr  # here, so that importing the accountant stays cheap

    a = orders - 1
    log_a, log_q = math.log1p(-q), math.log(q)
    crossing = 1 / (2 * sigma) + sigma * (log_a - log_q)
    with np.errstate(over="ignore", under="ignore"):
        # A_α − 1 = (1−q)·(a^{α−1} − 1) + q·(q^{α−1}·e^{α(α−1)/(2σ²)} − 1) + what is left.
        second = a * (log_q + orders / 2 / sigma / sigma)
        twice = np.log(orders) + a * math.log(2)
        left = twice + a * log_a + log_q + log_ndtr(crossing - 1 / sigma)
        power = a * log_q + a * (a - 1) / 2 / sigma / sigma
        right = twice + log_a + power + log_ndtr(a / sigma - crossing)
        rest = np.exp(np.minimum(left, 600)) + np.exp(np.minimum(right, 600))
        small = (1 - q) * np.expm1(a * log_a) + q * np.expm1(np.minimum(second, 600)) + rest
        logs = np.array([orders * log_a, log_q + second, left, right])
        large = np.logaddexp.reduce(logs, axis=0)
        moment = np.where(np.maximum(second, right) > 500, large, np.log1p(small))
    # The two terms of ``small`` cancel near order 1, down to a KL divergence of q/(2σ²).
    return moment * (1 + 1e-10) / a + 1e-12
