"""Fixed-size batches without replacement: Wang, Balle, Kasiviswanathan's bound."""

import itertools

import mpmath
import numpy as np
import pytest

from repro.accounting.without_replacement import _log_even_differences, rdp_fixed_batch_gaussian


def bound_by_definition(gamma, sigma, order):
    """Theorems 9 and 27 term by term, the forward differences as alternating sums, 200 digits."""
    with mpmath.workdps(200):
        gamma, sigma = mpmath.mpf(gamma), mpmath.mpf(sigma)

        def moment(j):
            return mpmath.exp(mpmath.mpf(j * (j - 1)) / (2 * sigma**2))

        def difference(k):
            return mpmath.fsum(
                (-1) ** (k - i) * mpmath.binomial(k, i) * moment(i) for i in range(k + 1)
            )

        total = mpmath.mpf(1)
        for j in range(2, order + 1):
            pair = difference(2 * (j // 2)) * difference(2 * ((j + 1) // 2))
            term = min(4 * mpmath.sqrt(pair), 2 * moment(j))
            total += mpmath.binomial(order, j) * gamma**j * term
        return float(mpmath.log(total) / (order - 1))


@pytest.mark.parametrize(
    ("gamma", "sigma"), list(itertools.product([1e-3, 0.05, 0.4], [0.5, 1, 4, 20]))
)
def test_integer_orders_match_the_theorems(gamma, sigma):
    """The integrated differences equal the alternating sums of the paper, at orders 2 … 40."""
    for order in (2, 3, 4, 9, 40):
        exact = min(bound_by_definition(gamma, sigma, order), order / (2 * sigma**2))
        got = rdp_fixed_batch_gaussian(sigma, gamma, np.array([float(order)]))[0]
        assert exact <= got <= exact * (1 + 1e-9)


def test_even_differences_by_hand():
    """B(0) = 1 and B(2) = e^{1/σ²} − 1."""
    differences = _log_even_differences(2.0, 2)
    np.testing.assert_allclose(differences[:2], [0, np.log(np.expm1(0.25))], atol=1e-13)


def test_between_integers_the_chord_bounds_the_moment():
    """At order 4.5 the log-moment is the mean of those at 4 and 5."""
    low, mid, high = rdp_fixed_batch_gaussian(3.0, 0.05, np.array([4.0, 4.5, 5.0]))
    assert mid * 3.5 == pytest.approx((low * 3 + high * 4) / 2, rel=1e-12)


def test_never_above_no_sampling_and_edges():
    """Rate 0 → 0; rate 1 and huge orders → α/(2σ²); σ = 0 → ∞; never above no sampling."""
    orders = np.array([1.5, 2, 17.3, 256, 5000])
    unsampled = orders / (2 * 1.3**2)
    assert rdp_fixed_batch_gaussian(1.3, 0.0, orders).tolist() == [0] * 5
    np.testing.assert_allclose(rdp_fixed_batch_gaussian(1.3, 1.0, orders), unsampled, rtol=1e-12)
    assert np.all(rdp_fixed_batch_gaussian(0.0, 0.1, orders) == np.inf)
    assert np.all(rdp_fixed_batch_gaussian(1.3, 0.9, orders) <= unsampled * (1 + 1e-12))


def test_above_a_pair_it_must_cover():
    """A true pair of neighbours never exceeds the bound: one record at +½ or −½, sampled at γ.

    With the record's batch fixed in size and all other records contributing 0, the outputs are
    (1−γ)N(0) + γN(±½) in units of the replace-one sensitivity; their divergence is integrated.
    """
    x = np.linspace(-30, 30, 60_001)

    def mixture(sign, gamma, sigma):
        normal = np.exp(-((x - sign * 0.5) ** 2) / (2 * sigma**2))
        other = np.exp(-(x**2) / (2 * sigma**2))
        return ((1 - gamma) * other + gamma * normal) / np.sqrt(2 * np.pi * sigma**2)

    for gamma, sigma, order in [(0.1, 1.0, 2.0), (0.3, 2.0, 5.0), (0.01, 1.0, 8.0)]:
        p, q = mixture(1, gamma, sigma), mixture(-1, gamma, sigma)
        density = p * (p / q) ** (order - 1)
        true = np.log(density.sum() * (x[1] - x[0])) / (order - 1)
        assert rdp_fixed_batch_gaussian(sigma, gamma, np.array([order]))[0] >= true > 0
