"""The trade-off curve and μ of Gaussian DP, against closed forms and dp-accounting.

One sampled step has its Neyman–Pearson curve in closed form: reject where the noise is above x.
Everything here is deterministic.
"""

import math

import numpy as np
import pytest
from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism
from scipy.stats import norm

from repro.accounting import (
    GaussianEvent,
    LaplaceEvent,
    NonPrivateEvent,
    PLDAccountant,
    PoissonSampledGaussianEvent,
)
from repro.accounting.tradeoff import LEAST_RATE, gaussian_curve, trade_off
from repro.errors import InputError


def curve_of(*counts, relation="add_remove"):
    return trade_off(dict(counts), relation, "record")


@pytest.mark.parametrize(("sigma", "steps"), [(2.0, 9), (0.5, 1), (30.0, 1000)])
def test_plain_gaussian_noise_is_its_own_curve(sigma, steps):
    """μ = Δ/σ·√T, no regret; exchanged for another, the sensitivity doubles."""
    found = curve_of((GaussianEvent(sigma), steps))
    mu = math.sqrt(steps) / sigma
    assert (found.mu, found.regret, found.least_rate) == (pytest.approx(mu, rel=1e-12), 0, 0)
    for alpha in (1e-9, 0.01, 0.5, 0.99):
        assert found.false_negative_rate(alpha) == pytest.approx(
            norm.cdf(norm.isf(alpha) - mu), rel=1e-12
        )
    swapped = curve_of((GaussianEvent(sigma), steps), relation="replace_one")
    assert swapped.mu == pytest.approx(2 * mu, rel=1e-12)


@pytest.mark.parametrize(("sigma", "steps"), [(2.0, 9), (40.0, 3)])
def test_the_polygon_of_all_but_unsampled_noise_finds_the_gaussian(sigma, steps):
    found = curve_of((PoissonSampledGaussianEvent(sigma, 1 - 1e-9), steps))
    mu = math.sqrt(steps) / sigma
    assert mu * (1 - 1e-6) <= found.mu <= mu * 1.0005
    assert 0 <= found.regret < 1e-4
    for alpha in (0.01, 0.3, 0.9):
        truth = gaussian_curve(mu, alpha)
        assert truth - 1e-4 <= found.false_negative_rate(alpha) <= truth + 1e-6


@pytest.mark.parametrize(("sigma", "rate"), [(0.7, 0.3), (1.5, 0.05), (3.0, 0.8)])
def test_one_sampled_step_against_neyman_and_pearson(sigma, rate):
    """Removing decides here: f's left half is its curve, the rest its mirror image."""
    # From where both outcomes are as likely, x = 1/(2σ), to where α is 1e-12.
    x = np.linspace(1 / (2 * sigma), 7.1, 40_001)
    alpha = norm.sf(x)
    missed = (1 - rate) * norm.sf(x) + rate * norm.sf(x - 1 / sigma)  # 1 − β
    found = curve_of((PoissonSampledGaussianEvent(sigma, rate), 1))
    ours = np.array([found.false_negative_rate(a) for a in alpha[::400].tolist()])
    assert np.all(ours <= 1 - missed[::400] + 1e-12)
    assert np.all(ours >= 1 - missed[::400] - 2e-4)
    truth = (norm.isf(alpha) - norm.isf(missed))[alpha >= LEAST_RATE].max()
    assert truth * (1 - 1e-9) <= found.mu <= truth * 1.003
    assert found.regret == pytest.approx(_regret(alpha, 1 - missed, found.mu), abs=3e-4)


def _regret(alpha, beta, mu):
    """The smallest κ with f(α + κ) − κ ≤ G_μ(α), as it is defined, by bisection.

    f: the half curve (α, β), its mirror image, and the straight line between them.
    """
    whole = np.concatenate([alpha[::-1], beta]), np.concatenate([beta[::-1], alpha])
    at = np.linspace(0, 1, 20_001)
    low, high = 0.0, 1.0
    for _ in range(40):
        kappa = (low + high) / 2
        shifted = np.interp(np.minimum(at + kappa, 1), *whole) - kappa
        if np.all(shifted <= norm.cdf(norm.isf(at) - mu)):
            high = kappa
        else:
            low = kappa
    return high


def test_many_sampled_steps_against_dp_accounting():
    """Its tangents at 600 ε; and μ and regret that gdpnum's README gives for these steps."""
    sigma, rate, steps = 9.4, 0.328, 2000
    found = curve_of((PoissonSampledGaussianEvent(sigma, rate), steps))
    theirs = from_gaussian_mechanism(
        sigma, sampling_prob=rate, value_discretization_interval=1e-3
    ).self_compose(steps)
    epsilons = np.linspace(0, 10, 600)
    deltas = np.array(theirs.get_delta_for_epsilon(epsilons.tolist()))
    for alpha in (0.001, 0.05, 0.3):
        falling = (1 - deltas - np.exp(epsilons) * alpha).max()
        rising = (np.exp(-epsilons) * (1 - deltas - alpha)).max()
        truth = max(falling, rising)
        assert truth - 1e-3 <= found.false_negative_rate(alpha) <= truth + 1e-3
    assert found.mu == pytest.approx(1.5685621993129137, rel=3e-4)
    assert found.regret == pytest.approx(0.0010208130697719753, abs=1e-4)


def test_a_profile_is_the_same_as_its_points():
    """Between the compositions it is read from too: within 0.3 % of δ asked for one by one."""
    steps = PLDAccountant().compose(PoissonSampledGaussianEvent(1.1, 0.1), 60)
    steps.compose(GaussianEvent(8.0), 2)
    epsilons = np.linspace(0, steps.epsilon(1e-10)[0], 17)
    for epsilon, delta in zip(epsilons.tolist(), steps.profile(epsilons).tolist(), strict=True):
        assert delta == pytest.approx(steps.delta(epsilon), rel=3e-3)


def test_no_noise_hides_nothing_and_nothing_spent_shows_nothing():
    for bare in (NonPrivateEvent(), GaussianEvent(0.0)):
        found = curve_of((bare, 1))
        assert found.mu == math.inf
        assert found.false_negative_rate(0.01) == 0
    nothing = curve_of((PoissonSampledGaussianEvent(1.0, 0.1), 0))
    assert (nothing.mu, nothing.regret) == (0, 0)
    assert nothing.false_negative_rate(0.3) == pytest.approx(0.7)


def test_what_has_no_loss_distribution_is_refused():
    with pytest.raises(InputError, match="Laplace"):
        curve_of((LaplaceEvent(1.0), 1))
