"""Independent, slow values of many digits to hold the accountant against (mpmath)."""

from __future__ import annotations

import mpmath

DIGITS = 50


def rdp_integer(q: float, sigma: float, order: int) -> mpmath.mpf:
    """RDP by the binomial expansion: exact at integer orders, all terms positive."""
    with mpmath.workdps(DIGITS):
        q, sigma = mpmath.mpf(q), mpmath.mpf(sigma)
        term = (1 - q) ** order  # k = 0; the next binomial term is a ratio away
        total = term
        for k in range(order):
            term *= (order - k) * q / ((k + 1) * (1 - q))
            total += term * mpmath.exp(mpmath.mpf(k * (k + 1)) / (2 * sigma**2))
        return mpmath.log(total) / (order - 1)


def rdp_quadrature(q: float, sigma: float, order: float, *, swapped: bool = False) -> mpmath.mpf:
    """RDP from the defining integral by Gauss–Legendre panels, at any order.

    swapped: the other direction, D_α(N(0, σ²) ‖ mixture).
    """
    # Within 3e-19 of 50 digits on panels of width 2, in half the time.
    with mpmath.workdps(34):
        q, sigma, order = mpmath.mpf(q), mpmath.mpf(sigma), mpmath.mpf(order)
        power, rest, offset = 1 - order if swapped else order, 1 - q, 1 / (2 * sigma**2)
        exp, log = mpmath.exp, mpmath.log

        def integrand(x: mpmath.mpf) -> mpmath.mpf:
            """The standard normal density, but for 1/√(2π), times ratio^power: one exponential."""
            ratio = rest + q * exp(x / sigma - offset)
            return exp(power * log(ratio) - x * x / 2)

        # The mass sits anywhere from around 0 to the last peak at order/σ; only where that peak
        # is far past the crossing of the two likelihoods is what lies between negligible.
        peak = order / sigma
        settled = max(sigma * mpmath.log((1 - q) / q) + 1 / (2 * sigma), 0) + 25 * sigma + 17
        panels = [(-17, (0 if swapped else peak) + 17)]
        if not swapped and peak - 17 > settled:
            panels = [(-17, settled), (peak - 17, peak + 17)]
        total = mpmath.mpf(0)
        for low, high in panels:
            edges = mpmath.linspace(low, high, int(high - low) // 4 + 2)
            total += mpmath.quad(integrand, edges, method="gauss-legendre", maxdegree=6)
        return mpmath.log(total / mpmath.sqrt(2 * mpmath.pi)) / (order - 1)


def gaussian_log_delta(mu: float, epsilon: float) -> mpmath.mpf:
    """log δ of μ-Gaussian DP from the two normal tails (Balle and Wang 2018, Theorem 8)."""
    # The two terms agree in up to log10(e)·ε²/(2μ²) digits; keep that many more.
    with mpmath.workdps(DIGITS + 60):
        mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
        first = mpmath.ncdf(mu / 2 - epsilon / mu)
        return mpmath.log(first - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu))


def relative(value: float, truth: mpmath.mpf) -> float:
    """(value − truth)/truth, computed in 50 digits."""
    with mpmath.workdps(DIGITS):
        return float(mpmath.mpf(value) / truth - 1)


def delta_of_one_step(sigma: float, rate: float, epsilon: float, adding: bool) -> mpmath.mpf:
    """δ at ε ≥ 0 straight from the definition: P(S) − e^ε·Q(S) of the best set S, at 60 digits."""
    with mpmath.workdps(60):
        sigma, rate, epsilon = map(mpmath.mpf, (sigma, rate, epsilon))

        def tail(x: mpmath.mpf, mean: int) -> mpmath.mpf:  # P(N(mean, σ²) > x)
            return mpmath.ncdf((mean - x) / sigma)

        y = mpmath.exp(-epsilon if adding else epsilon)
        c = 1 + (y - 1) / rate
        if c <= 0:
            return mpmath.mpf(0)
        x = sigma**2 * mpmath.log(c) + mpmath.mpf(1) / 2  # where the mixture is y times the noise
        mixed, plain = (1 - rate) * tail(x, 0) + rate * tail(x, 1), tail(x, 0)
        if adding:
            return (1 - plain) - (1 - mixed) / y
        return mixed - y * plain


def epsilon_of_one_step(sigma: float, rate: float, delta: float) -> float:
    """The larger ε of both directions, by bisection on the definition."""
    worst = mpmath.mpf(0)
    with mpmath.workdps(60):
        for adding in (False, True):
            low, high = mpmath.mpf(0), mpmath.mpf(1)
            if delta_of_one_step(sigma, rate, low, adding) <= delta:
                continue
            while delta_of_one_step(sigma, rate, high, adding) > delta:
                high *= 2
            for _ in range(110):  # ε of 1e-8 to 25 digits
                middle = (low + high) / 2
                if delta_of_one_step(sigma, rate, middle, adding) > delta:
                    low = middle
                else:
                    high = middle
            worst = max(worst, high)
    return float(worst)
