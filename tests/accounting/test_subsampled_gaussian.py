"""The Rényi divergence of the subsampled Gaussian, against arithmetic of 34 and 50 digits."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from repro.accounting import (
    FixedBatchGaussianEvent,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    RDPAccountant,
)
from repro.accounting.subsampled_gaussian import (
    _excess,
    _moments_on,
    rdp_gaussian,
    rdp_poisson_gaussian,
    trapezoidal_step,
)
from repro.accounting.without_replacement import rdp_fixed_batch_gaussian
from repro.errors import InputError
from tests.accounting.oracles import rdp_integer, rdp_quadrature, relative

TOLERANCE = 1e-10

RATES = [1e-5, 1e-3, 0.03, 0.5, 0.999]
SIGMAS = [0.3, 0.7, 1.1, 4.0, 13.3, 100.0]


def ours(q, sigma, order):
    return float(rdp_poisson_gaussian(sigma, q, np.array([order], dtype=float))[0])


def assert_outward(value, truth):
    """Never below the truth, and at most 1e-10 of it above."""
    assert 0 <= relative(value, truth) <= TOLERANCE


@pytest.mark.parametrize(("q", "sigma"), list(itertools.product(RATES, SIGMAS)))
def test_integer_orders_match_the_binomial_expansion(q, sigma):
    """At integer orders up to 1024: within 1e-10 above the exact sum, never below."""
    for order in (2, 3, 8, 33, 256, 1024):
        assert_outward(ours(q, sigma, order), rdp_integer(q, sigma, order))


@pytest.mark.parametrize(
    ("q", "sigma"), [(1e-5, 0.3), (1e-5, 13.3), (0.5, 13.3), (0.999, 100.0), (1e-3, 30.0)]
)
def test_the_largest_order_matches_the_binomial_expansion(q, sigma):
    """Order 4096, also where two peaks of the integrand balance (q = 1e-5, σ = 13.3)."""
    assert_outward(ours(q, sigma, 4096), rdp_integer(q, sigma, 4096))


@pytest.mark.parametrize(
    ("q", "sigma"), list(itertools.product([1e-5, 0.01, 0.7], [0.3, 1.0, 7.0, 100]))
)
def test_fractional_orders_match_quadrature(q, sigma):
    """At fractional orders: within 1e-10 above a 34-digit quadrature, never below."""
    for order in (1.01, 1.1, 1.5, 2.5, 7.3, 100.5):
        assert_outward(ours(q, sigma, order), rdp_quadrature(q, sigma, order))


@given(
    log_q=st.floats(np.log(1e-5), np.log(0.9999)),
    log_sigma=st.floats(np.log(0.3), np.log(100.0)),
    log_a=st.floats(np.log(0.01), np.log(4095.0)),
)
@settings(max_examples=60)
@example(log_q=np.log(1e-5), log_sigma=np.log(0.3), log_a=np.log(0.01))
@example(log_q=np.log(1e-5), log_sigma=np.log(13.3), log_a=np.log(4094.5))
@example(log_q=np.log(0.9999), log_sigma=np.log(100.0), log_a=np.log(4094.5))
def test_generated_cases_match_quadrature(log_q, log_sigma, log_a):
    """Anywhere in q ∈ [1e-5, 1), σ ∈ [0.3, 100], α ∈ [1.01, 4096]: within 1e-10, never below."""
    q, sigma, order = np.exp(log_q), np.exp(log_sigma), 1 + np.exp(log_a)
    assert_outward(ours(q, sigma, order), rdp_quadrature(q, sigma, order))


@pytest.mark.parametrize(("q", "sigma", "order"), [(0.3, 1.0, 2.5), (0.01, 0.7, 6.0), (0.9, 5, 40)])
def test_the_other_direction_is_never_larger(q, sigma, order):
    """D_α(Q‖P) ≤ D_α(P‖Q): the direction that is computed dominates (Theorem 5)."""
    assert ours(q, sigma, order) >= rdp_quadrature(q, sigma, order, swapped=True)


def test_outward_rounding_is_small_and_needed():
    """The allowance is what separates the result from the plain sum: it is never 0."""
    for q, sigma, order in [(1e-4, 1.0, 3.5), (0.1, 2.0, 17.0)]:
        gap = relative(ours(q, sigma, order), rdp_quadrature(q, sigma, order))
        assert 1e-12 < gap < 1e-11


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 3.0, 50.0])
def test_a_finer_step_changes_nothing(sigma):
    """The step is already converged: halving it moves the result by rounding error only."""
    orders = np.array([1.01, 1.7, 5.5, 20.2])
    step = trapezoidal_step(sigma)
    last = orders.max() / sigma + 12
    results = []
    for h in (step, step / 2):
        x = np.arange(round(-12 / h), round(last / h)) * h
        results.append(_moments_on(sigma, 0.01, orders, x, h))
    np.testing.assert_allclose(results[0], results[1], rtol=2e-12)


@pytest.mark.parametrize("order", [1.0 + 1e-9, 1.5, 2.0, 7.25, 300.0])
def test_the_excess_is_accurate_where_it_cancels(order):
    """(1+u)^α − 1 − αu to 1e-12 relative, for |u| from 1e-9 to 0.9 on both sides of 0."""
    import mpmath

    sizes = np.geomspace(1e-9, 0.9, 40)
    u = np.concatenate([-sizes, sizes])
    got = _excess(np.array([[order]]), u, np.log1p(u))[0]
    with mpmath.workdps(60):
        alpha = mpmath.mpf(order)
        for value, point in zip(got, u.tolist(), strict=True):
            v = mpmath.mpf(point)
            assert abs(relative(float(value), (1 + v) ** alpha - 1 - alpha * v)) < 1e-12


def test_edges():
    """q = 0 → 0, q = 1 → α/(2σ²), σ = 0 → ∞, and overflow to ∞ rather than NaN."""
    orders = np.array([1.01, 2.0, 4096.0])
    assert rdp_poisson_gaussian(1.0, 0.0, orders).tolist() == [0, 0, 0]
    np.testing.assert_allclose(rdp_poisson_gaussian(3.0, 1.0, orders), orders / 18, rtol=1e-14)
    assert np.all(rdp_poisson_gaussian(0.0, 0.5, orders) == np.inf)
    assert np.all(rdp_poisson_gaussian(1e-200, 0.5, orders) == np.inf)


def test_underflow_stays_above_zero():
    """An RDP too small for a float is rounded up to the smallest one, not down to 0."""
    assert np.all(rdp_poisson_gaussian(1e250, 0.1, np.array([1.5, 9.0])) > 0)
    assert np.all(rdp_gaussian(1e250, np.array([1.5, 9.0])) > 0)


@pytest.mark.parametrize("sigma", [0.2, 0.05, 0.021, 0.019, 0.005])
def test_small_noise_is_bounded_from_above(sigma):
    """Below σ = 0.3 no precision is promised, but the bound still holds (and at q·ε, sanely)."""
    for q, order in itertools.product([1e-3, 0.3], [1.05, 2.0, 3.5, 30.0]):
        value = ours(q, sigma, order)
        assert relative(value, rdp_quadrature(q, sigma, order)) >= 0
        assert value <= order / (2 * sigma**2) * (1 + 1e-12)


@given(q=st.floats(1e-5, 0.98), sigma=st.floats(0.3, 90.0), order=st.floats(1.01, 500.0))
@settings(max_examples=100)
def test_monotone_in_rate_noise_and_order(q, sigma, order):
    """More sampling, less noise or a higher order never lowers the divergence."""
    base = ours(q, sigma, order)
    assert ours(q * 1.01, sigma, order) >= base
    assert ours(q, sigma * 0.99, order) >= base
    assert ours(q, sigma, order * 1.01) >= base


@given(
    q=st.floats(1e-5, 1.0),
    sigma=st.floats(0.3, 100.0),
    orders=st.lists(st.floats(1.01, 4096.0), min_size=1, max_size=9),
)
@settings(max_examples=40)
def test_a_batch_of_orders_equals_each_order_alone(q, sigma, orders):
    """How orders are grouped into tables does not matter (up to the outward allowance)."""
    together = rdp_poisson_gaussian(sigma, q, np.array(orders))
    alone = [ours(q, sigma, order) for order in orders]
    np.testing.assert_allclose(together, alone, rtol=2e-11)


@pytest.mark.parametrize(
    ("sigma", "q"), [(-1.0, 0.1), (float("nan"), 0.1), (float("inf"), 0.1), (1.0, 1.5), (1.0, -0.1)]
)
def test_bad_parameters_are_refused(sigma, q):
    """NaN, negative noise and impossible rates are one clear line, not a number."""
    with pytest.raises(InputError):
        rdp_poisson_gaussian(sigma, q, np.array([2.0]))


@pytest.mark.parametrize("order", [1.0001, 1.01, 1.5, 2.0, 17.0])
def test_no_jump_where_the_formula_changes(order):
    """From quadrature to the two separate peaks, at σ = 0.04: the RDP goes on smoothly."""
    for q in (1e-4, 0.1, 0.9):
        above, below = ours(q, 0.0400001, order), ours(q, 0.0399999, order)
        assert above <= below <= above * (1 + 1e-4)


@pytest.mark.parametrize("bad", [[1.0], [0.5, 2.0], [math.nan], [math.inf]])
def test_orders_are_checked(bad):
    """Orders at or below 1, or infinite: refused, whichever curve is asked."""
    for curve in (rdp_poisson_gaussian, rdp_fixed_batch_gaussian):
        with pytest.raises(InputError, match="orders"):
            curve(1.0, 0.1, np.array(bad))
    with pytest.raises(InputError, match="orders"):
        RDPAccountant().compose(GaussianEvent(1.0)).rdp(np.array(bad))


def test_orders_are_a_list():
    """A table of them is refused: by its shape's type here, by name where types are not checked."""
    with pytest.raises((InputError, TypeError)):
        rdp_poisson_gaussian(1.0, 0.1, np.array([[2.0]]))


def test_nothing_however_often_is_nothing():
    """Rate 0 a googol times: 0, not NaN."""
    for event in (PoissonSampledGaussianEvent(1.0, 0.0), FixedBatchGaussianEvent(1.0, 0.0)):
        relation = event.proved_for()[0]
        accountant = RDPAccountant(relation).compose(event, 10**400)
        assert accountant.epsilon(1e-5)[0] == 0
        assert accountant.delta(0.1) <= 1e-300
        assert np.all(accountant.rdp(np.array([2.0, 50.0])) == 0)
