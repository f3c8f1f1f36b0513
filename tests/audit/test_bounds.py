"""The audit's statistics against exact tails, Monte Carlo and Gaussians that are known."""

import math

import numpy as np
import pytest
from scipy import stats

from repro.accounting.gaussian import epsilon_of_mu
from repro.audit import bounds
from repro.errors import InputError


@pytest.mark.parametrize(("v", "n"), [(0, 10), (3, 10), (10, 10), (500, 1000)])
def test_clopper_pearson_solves_its_own_definition(v, n):
    """At the lower bound P[Bin ≥ v] is 5 %, at the upper one P[Bin ≤ v] is."""
    lower, upper = bounds.clopper_pearson(v, n, 0.95)
    if v:
        assert stats.binom.sf(v - 1, n, lower) == pytest.approx(0.05, rel=1e-6)
    else:
        assert lower == 0
    if v < n:
        assert stats.binom.cdf(v, n, upper) == pytest.approx(0.05, rel=1e-6)
    else:
        assert upper == 1


def test_a_gaussian_mechanism_is_bounded_from_below_and_nearly_met():
    """400 audits at confidence 0.9; more than 70 too high by chance: below 2e-6 (binomial)."""
    mu, delta, n, high = 1.5, 1e-3, 3000, 0
    truth, found = epsilon_of_mu(mu, delta), []
    stream = np.random.default_rng(1)
    for _ in range(400):
        inside, outside = stream.normal(mu, 1, n), stream.normal(0, 1, n)
        rates = bounds.rates(inside, outside, mu / 2, 0.9)
        found.append(bounds.mu_from_rates(rates))
        high += found[-1] > mu or bounds.epsilon_from_rates(rates, delta) > truth
    assert stats.binom.sf(70, 400, 0.1) < 2e-6
    assert high <= 70
    assert np.median(found) > 0.9 * mu


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_both_rates_bounds_hold_together_as_often_as_stated(confidence):
    """Exact: over all outcomes of 30 trials, at the rates that are hardest to cover."""
    n, outcomes = 30, range(31)
    scores = [np.repeat([1.0, 0.0], [v, n - v]) for v in outcomes]
    found = [bounds.rates(seen, seen, 0.5, confidence) for seen in scores]
    lower, upper = [r.true_positive for r in found], [r.false_positive for r in found]
    # Just inside a bound it fails for all outcomes from there on: the coverage's lowest points.
    true = [p * (1 - 1e-9) for p in lower if p > 0]
    false = [p + 1e-9 for p in upper if p < 1]
    hit = [sum(stats.binom.pmf(v, n, p) for v in outcomes if lower[v] <= p) for p in true]
    kept = [sum(stats.binom.pmf(v, n, p) for v in outcomes if upper[v] >= p) for p in false]
    assert confidence <= min(hit) * min(kept) < confidence + (1 - confidence) / 2


def test_epsilon_from_rates_is_the_definition():
    """TPR ≤ e^ε·FPR + δ holds with equality at the stated ε."""
    found = bounds.Rates(0.0, 0.4, 0.05, 0.9)
    for delta in (0.0, 1e-3, 0.1):
        epsilon = bounds.epsilon_from_rates(found, delta)
        assert math.exp(epsilon) * 0.05 + delta == pytest.approx(0.4, rel=1e-12)
    assert bounds.epsilon_from_rates(found, 0.36) == bounds.epsilon_from_rates(found, 0.5) == 0


def test_one_run_p_value_without_delta_is_the_binomial_tail():
    """Steinke et al. 2023, corollary: guesses are dominated by Bin(r, e^ε/(1 + e^ε))."""
    p = bounds.one_run_p_value(100, 80, 60, 0.7, 0.0)
    assert p == pytest.approx(stats.binom.sf(59, 80, 1 / (1 + math.exp(-0.7))))


def test_one_run_p_value_by_the_definition():
    """Theorem 5.2 term by term, on small numbers."""
    m, r, v, epsilon, delta = 40, 20, 16, 0.8, 1e-3
    w = stats.binom(r, math.exp(epsilon) / (1 + math.exp(epsilon)))
    worst = max((w.sf(v - i - 1) - w.sf(v - 1)) / i for i in range(1, m + 1))
    expected = w.sf(v - 1) + 2 * m * delta * worst
    assert bounds.one_run_p_value(m, r, v, epsilon, delta) == pytest.approx(expected)


def test_one_run_never_accuses_randomised_response():
    """ε-DP exactly, and the worst case. 1,000 runs at 0.95: over 85 by chance, below 2e-6."""
    epsilon, m = 1.0, 400
    stream = np.random.default_rng(2)
    right = stream.binomial(m, 1 / (1 + math.exp(-epsilon)), 1000)
    known = {v: bounds.one_run_epsilon(m, m, int(v), 0.0, 0.95) for v in set(right.tolist())}
    found = np.array([known[v] for v in right.tolist()])
    assert stats.binom.sf(85, 1000, 0.05) < 2e-6
    assert (found > epsilon).sum() <= 85
    assert np.median(found) > 0.7


def test_one_run_covers_the_share_that_delta_gives_away():
    """With probability δ a canary is shown: m δ more right guesses are explained."""
    plain = bounds.one_run_epsilon(1000, 500, 450, 0.0, 0.95)
    assert bounds.one_run_epsilon(1000, 500, 450, 1e-3, 0.95) < plain
    assert bounds.one_run_epsilon(1000, 500, 240, 0.0, 0.95) == 0


@pytest.mark.parametrize("confidence", [0.0, 1.0, 2.0])
def test_bad_input_is_named(confidence):
    with pytest.raises(InputError, match="confidence"):
        bounds.clopper_pearson(1, 2, confidence)
    with pytest.raises(InputError, match="successes"):
        bounds.clopper_pearson(3, 2, 0.9)
    with pytest.raises(InputError, match="right"):
        bounds.one_run_p_value(10, 5, 6, 1.0, 0.0)
