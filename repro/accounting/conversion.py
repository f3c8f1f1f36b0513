"""From Rényi divergence to (ε, δ) at given orders, and back; every result rounded outward.

The tight conversion is Canonne, Kamath, Steinke 2020 (arXiv 2004.00010 v4), Proposition 12,
the same bound as Balle et al. 2020 (arXiv 1905.09982), Theorem 21; never above Mironov's (2017,
arXiv 1702.07476, Proposition 3).
"""

from __future__ import annotations

import math

import numpy as np

from repro.accounting.checks import Orders

_EPS = 2.0**-52


def epsilon_from_rdp(orders: Orders, rdp: Orders, delta: float) -> Orders:
    """ε at which the mechanism is (ε, δ)-DP, for each order on its own.

    orders (m,) in (1, ∞), rdp (m,) ≥ 0 in nats, 0 < δ < 1 → (m,) ε ≥ 0.
    ε = ρ + log(1 − 1/α) − (log δ + log α)/(α − 1), clamped at 0.
    """
    a = orders - 1
    shift = np.log(a / orders)  # log(1 − 1/α), exact as α → 1
    tail = -(math.log(delta) + np.log(orders)) / a
    magnitude = rdp + np.abs(shift) + (abs(math.log(delta)) + np.log(orders)) / a
    epsilon = rdp + shift + tail + 4 * _EPS * magnitude
    return np.maximum(epsilon, 0.0)


def log_delta_from_rdp(orders: Orders, rdp: Orders, epsilon: float) -> Orders:
    """log δ at which the mechanism is (ε, δ)-DP, for each order on its own; at most 0.

    The same proposition solved for δ: (α−1)(ρ − ε + log(1 − 1/α)) − log α.
    """
    a = orders - 1
    shift = np.log(a / orders)
    magnitude = a * (rdp + epsilon + np.abs(shift)) + np.log(orders)
    log_delta = a * (rdp - epsilon + shift) - np.log(orders) + 8 * _EPS * magnitude
    return np.minimum(log_delta, 0.0)


def total_variation_bound(rdp: float) -> float:
    """The KL branch: a bound on total variation, which is δ at ε = 0 and bounds δ at every ε.

    Bretagnolle–Huber: TV ≤ √(1 − e^{−KL}), and KL ≤ D_α = ``rdp`` for every α > 1, so it is
    best at an order near 1.
    """
    return min(1.0, math.sqrt(-math.expm1(-rdp)) * (1 + 4 * _EPS))
