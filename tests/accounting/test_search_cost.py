"""Random stopping against the exact distribution of the best of N trials."""

import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.accounting import GaussianEvent, NonPrivateEvent, gaussian_epsilon, gaussian_sigma
from repro.accounting.accountant import RDPAccountant
from repro.accounting.random_stopping import gamma_of, mean_trials
from repro.accounting.search_cost import random_stopping_rdp, search_epsilon
from repro.errors import InputError

MEANS = st.floats(1.01, 5000.0)
ETAS = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-0.9, 5.0))


def probabilities(eta, gamma, count):
    """P(N = 1), …, P(N = count) of D(η, γ), from its definition (a product over l < k)."""
    products = [mp.mpf(1)]
    for k in range(1, count + 1):
        factor = (k - 1 + mp.mpf(eta)) / k if k > 1 or eta else mp.mpf(1)
        products.append(products[-1] * factor * (1 - mp.mpf(gamma)))
    whole = mp.log(1 / mp.mpf(gamma)) if eta == 0 else mp.mpf(gamma) ** -eta - 1
    return [product / whole for product in products[1:]]


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("mean", [1.2, 4.0, 9.0])
def test_mean_is_that_of_the_distribution(eta, mean):
    gamma = gamma_of(eta, mean)
    chance = probabilities(eta, gamma, 6000)
    assert abs(sum(chance) - 1) < 1e-9
    assert float(sum(k * p for k, p in enumerate(chance, 1))) == pytest.approx(mean, rel=1e-6)


@given(eta=ETAS, mean=MEANS)
def test_gamma_gives_at_least_the_mean(eta, mean):
    gamma = gamma_of(eta, mean)
    assert 0 < gamma < 1
    assert mean <= mean_trials(eta, gamma) <= mean * (1 + 1e-6)


def best_of(tail, density, eta, gamma):
    """Density of the best of N trials at a point: PGF′(P(trial ≤ y)) · density(y)."""
    rest = 1 - (1 - mp.mpf(gamma)) * (1 - tail)
    if eta == 0:
        slope = (1 - gamma) / (rest * mp.log(1 / mp.mpf(gamma)))
    else:
        slope = eta * (1 - gamma) * rest ** (-eta - 1) / (mp.mpf(gamma) ** -eta - 1)
    return slope * density


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(("mu", "mean"), [(0.5, 10.0), (1.3, 410.0)])
@pytest.mark.parametrize("order", [1.5, 4.0])
def test_bound_holds_for_the_best_of_gaussian_trials(eta, mu, mean, order):
    """N(0, 1) against N(μ, 1), the larger output wins: Rényi divergence by quadrature."""
    gamma = gamma_of(eta, mean)
    with mp.workdps(30):

        def best(y, shift):
            z = y - shift
            return best_of(mp.erfc(z / mp.sqrt(2)) / 2, mp.npdf(z), eta, gamma)

        edges = [-14, -4, 0, 2, 4, 7, 16]
        both = []
        for one, other in ((0, mu), (mu, 0)):
            moment = mp.quad(
                lambda y, p=one, q=other: best(y, p) ** order * best(y, q) ** (1 - order), edges
            )
            both.append(float(mp.log(moment) / (order - 1)))
        assert float(mp.quad(lambda y: best(y, 0), edges)) == pytest.approx(1, abs=1e-6)
    accountant = RDPAccountant().compose(GaussianEvent(1 / mu))
    bound = random_stopping_rdp(accountant, np.array([order]), mean, eta)[0]
    assert max(both) <= bound
    assert max(both) > mu * mu * order / 2  # choosing does cost something here


def test_cost_of_the_searches_of_record():
    """410 trials of (6, 1e-5)-DP Gaussian releases; docs/feature-search.md quotes these."""
    trial = {GaussianEvent(gaussian_sigma(6.0, 1.0, 1, 1e-5)): 1}
    assert search_epsilon(trial, 1e-5, 410, 0) == pytest.approx(12.44, abs=0.005)
    assert search_epsilon(trial, 1e-5, 410, 1) == pytest.approx(15.39, abs=0.005)


@given(epsilon=st.floats(0.2, 10), mean=st.floats(1.05, 1000), eta=st.sampled_from([0.0, 1.0]))
@settings(max_examples=25)
def test_between_one_trial_and_all_of_them(epsilon, mean, eta):
    """Choosing never costs less than one trial; more trials never cost less."""
    sigma = gaussian_sigma(epsilon, 1.0, 1, 1e-5)
    counts = {GaussianEvent(sigma): 1}
    cost = search_epsilon(counts, 1e-5, mean, eta)
    assert cost >= gaussian_epsilon(sigma, 1.0, 1, 1e-5)
    assert search_epsilon(counts, 1e-5, 2 * mean, eta) >= cost * (1 - 1e-6)


def test_no_noise_has_no_bound_and_nonsense_is_refused():
    assert search_epsilon({NonPrivateEvent(): 1}, 1e-5, 10) == math.inf
    for mean, eta in (
        (410, -0.999),
        (1, 0.0),
        (0.5, 0.0),
        (math.nan, 0.0),
        (10, -1.0),
        (10, math.nan),
    ):
        with pytest.raises(InputError):
            search_epsilon({GaussianEvent(1.0): 1}, 1e-5, mean, eta)
    with pytest.raises(InputError):
        search_epsilon({GaussianEvent(1.0): 1}, 0.0, 10)
