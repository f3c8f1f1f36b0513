"""What shuffled passes cannot go below: against the definition, and simulated."""

import math

import mpmath
import numpy as np
import pytest

from repro.accounting import gaussian_epsilon
from repro.accounting.shuffled import Passes, shuffled_lower_epsilon


def test_passes():
    """1/rate steps a pass; what is unfinished counts above, not below."""
    assert Passes.of(100, 0.1) == Passes(10, 10, 10)
    assert Passes.of(105, 0.1) == Passes(10, 10, 11)
    assert Passes.of(5, 0.1, rounds=3) == Passes(0, 10, 3)
    assert Passes.of(7, 1 / 3, rounds=2) == Passes(4, 3, 6)
    assert Passes.of(4, 1.0) == Passes(4, 1, 4)
    assert Passes.of(4, 0.0).most == 0


def best_of_one_pass(sigma, k, delta):
    """The same bound for one pass at 40 digits, over a fine scan of thresholds."""
    best = mpmath.mpf(0)
    with mpmath.workdps(40):
        for tau in mpmath.linspace(-2, 1 / mpmath.mpf(sigma) + 9, 1200):
            none, one = mpmath.ncdf(tau), mpmath.ncdf(tau - 1 / mpmath.mpf(sigma))
            p, q = 1 - none ** (k - 1) * one, 1 - none**k
            for here, there in ((p, q), (1 - q, 1 - p)):
                if here > delta and there > 0:
                    best = max(best, mpmath.log((here - delta) / there))
    return float(best)


@pytest.mark.parametrize(("sigma", "k"), [(0.4, 10), (0.7, 100), (2.0, 3)])
def test_one_pass_against_forty_digits(sigma, k):
    got = shuffled_lower_epsilon(sigma, Passes(1, k, 1), 1e-5)
    fine = best_of_one_pass(sigma, k, mpmath.mpf("1e-5"))
    assert 0.98 * fine <= got <= fine * 1.001


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_below_the_proved_bound(sigma):
    """One step a pass is no shuffling: plain releases, whose ε is exact. Never above that.

    Only whether a sum is above a threshold is used, so half of ε may be lost, more at small σ.
    """
    for passes in (1, 10, 300):
        exact = gaussian_epsilon(sigma, 1.0, passes, 1e-6)
        plain = shuffled_lower_epsilon(sigma, Passes(passes, 1, passes), 1e-6)
        assert (0.5 if sigma >= 1 else 0.05) * exact <= plain <= exact
        assert shuffled_lower_epsilon(sigma, Passes(passes, 50, passes), 1e-6) <= exact


def test_many_passes_say_more_than_one():
    found = [shuffled_lower_epsilon(0.7, Passes(n, 20, n), 1e-6) for n in (1, 10, 100)]
    assert found[0] < found[1] < found[2]


def test_edges():
    assert shuffled_lower_epsilon(0.0, Passes(1, 10, 1), 1e-5) == math.inf
    assert shuffled_lower_epsilon(0.0, Passes(0, 10, 1), 1e-5) == 0
    assert shuffled_lower_epsilon(1e3, Passes(1, 10, 1), 1e-3) == 0
    assert np.isfinite(shuffled_lower_epsilon(1e-3, Passes(5, 10, 5), 1e-5))
