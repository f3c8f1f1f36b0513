"""From RDP to (ε, δ): the formula, its neighbours, and its limits."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.accounting.conversion import (
    epsilon_from_rdp,
    log_delta_from_rdp,
    total_variation_bound,
)

ORDERS = st.floats(1.0001, 5000.0)
RDPS = st.floats(0.0, 1e6)
DELTAS = st.floats(1e-300, 0.999)


def one(function, order, rdp, third):
    return float(function(np.array([order]), np.array([rdp]), third)[0])


@given(order=ORDERS, rdp=RDPS, delta=DELTAS)
def test_tight_conversion_is_proposition_12_rounded_up(order, rdp, delta):
    """Within rounding above ρ + log(1−1/α) − (log δ + log α)/(α−1) in 50 digits, never below."""
    with mpmath.workdps(50):
        alpha = mpmath.mpf(order)
        a = alpha - 1
        exact = rdp + mpmath.log(a / alpha) - (mpmath.log(delta) + mpmath.log(alpha)) / a
        size = rdp + abs(mpmath.log(a / alpha)) + (abs(mpmath.log(delta)) + mpmath.log(alpha)) / a
    got = one(epsilon_from_rdp, order, rdp, delta)
    assert max(exact, 0) <= got <= max(exact, 0) + 4e-15 * size


@given(order=ORDERS, rdp=RDPS, delta=DELTAS)
def test_never_above_mironov(order, rdp, delta):
    """The tight conversion is never above Mironov's (2017, Proposition 3), at any order."""
    mironov = np.float64(rdp) - math.log(delta) / (np.float64(order) - 1)
    assert one(epsilon_from_rdp, order, rdp, delta) <= mironov


@given(order=ORDERS, rdp=st.floats(0.0, 50.0), delta=DELTAS)
def test_delta_inverts_epsilon(order, rdp, delta):
    """δ at the ε of δ gives δ back, or less where ε was clamped at 0."""
    epsilon = one(epsilon_from_rdp, order, rdp, delta)
    back = one(log_delta_from_rdp, order, rdp, epsilon)
    slack = 1e-12 * (1 + order * (rdp + 1) + abs(math.log(delta)))
    assert back <= math.log(delta) + slack
    if epsilon > 0:
        assert back == pytest.approx(math.log(delta), abs=slack)


@pytest.mark.parametrize(("p", "q"), [(0.5, 0.5), (0.3, 0.31), (0.9, 0.1), (0.999, 0.5)])
def test_kl_branch_bounds_total_variation(p, q):
    """Two coins: |p − q| ≤ √(1 − e^{−KL}); the bound is 0 only for equal coins, never above 1."""
    kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    bound = total_variation_bound(kl)
    assert abs(p - q) <= bound <= 1
    assert total_variation_bound(math.inf) == 1
    assert total_variation_bound(0.0) == 0


def test_the_two_published_forms_agree():
    """Proposition 12 solved for δ, in its printed form e^{(α−1)(ρ−ε)}·(1−1/α)^α/(α−1)."""
    for order, rdp, epsilon in [(2.5, 0.3, 1.0), (20.0, 1.0, 3.0)]:
        a = order - 1
        printed = math.exp(a * (rdp - epsilon)) * (1 - 1 / order) ** order / a
        assert one(log_delta_from_rdp, order, rdp, epsilon) == pytest.approx(math.log(printed))
