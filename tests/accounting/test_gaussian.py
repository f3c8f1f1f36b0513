"""Exact Gaussian accounting, against 110-digit tails and the paper's table."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.accounting.gaussian import (
    basic_composition,
    classical_epsilon,
    classical_sigma,
    compose_mu,
    epsilon_of_mu,
    gaussian_epsilon,
    gaussian_sigma,
    log_delta_of_mu,
)
from repro.errors import InputError
from tests.accounting.oracles import gaussian_log_delta

DELTA = 1.9e-4
SIGMA = classical_sigma(6.0, 1.0, DELTA)


@given(log_mu=st.floats(math.log(1e-6), math.log(300.0)), where=st.floats(-1.0, 8.0))
@settings(max_examples=150)
def test_delta_matches_the_two_tails(log_mu, where):
    """log δ within 1e-11 relative (1e-13 absolute) above the definition, never below."""
    mu = math.exp(log_mu)
    epsilon = max(0.0, mu * mu / 2 + where * mu)
    exact = gaussian_log_delta(mu, epsilon)
    got = log_delta_of_mu(mu, epsilon)
    assert exact <= got <= exact + 2e-13 + 2e-12 * (1 + abs(exact))


@pytest.mark.parametrize("mu", [1e-12, 1e-3, 0.2499, 0.2501, 1.0, 20.0, 440.0])
@pytest.mark.parametrize("delta", [1e-300, 1e-9, 0.01, 0.6])
def test_epsilon_is_the_smallest_that_holds(mu, delta):
    """δ(ε) ≤ δ at the returned ε, and not at an ε smaller by 1e-9."""
    epsilon = epsilon_of_mu(mu, delta)
    assert gaussian_log_delta(mu, epsilon) <= math.log(delta)
    if epsilon > 0:
        assert gaussian_log_delta(mu, epsilon * (1 - 1e-9)) > math.log(delta)


def test_the_papers_noise_and_what_it_would_need():
    """σ = 0.698873 from the classical formula; 32.8 and 65.5 for a true total of 6."""
    assert pytest.approx(0.698873, abs=5e-7) == SIGMA
    assert classical_epsilon(SIGMA, 1, DELTA) == pytest.approx(6.0, rel=1e-12)
    assert gaussian_sigma(6, 7, 50, DELTA) == pytest.approx(32.8, abs=0.05)
    assert gaussian_sigma(6, 14, 50, DELTA) == pytest.approx(65.5, abs=0.05)
    assert basic_composition(6, DELTA, 50) == (300, pytest.approx(9.5e-3))


@given(epsilon=st.floats(1e-3, 1e4), delta=st.floats(1e-12, 0.5), rounds=st.integers(1, 10**6))
@settings(max_examples=40)
def test_calibrated_sigma_holds_and_is_tight(epsilon, delta, rounds):
    """ε(σ) ≤ target, and a σ smaller by 1e-8 misses it."""
    sigma = gaussian_sigma(epsilon, 3.0, rounds, delta)
    assert gaussian_epsilon(sigma, 3.0, rounds, delta) <= epsilon
    assert gaussian_epsilon(sigma * (1 - 1e-8), 3.0, rounds, delta) > epsilon


def test_composition_by_mu():
    """μ = √T·Δ/σ: four rounds are one with twice the sensitivity; 10⁹ rounds cost nothing."""
    assert gaussian_epsilon(2.0, 1.0, 4, 1e-5) == gaussian_epsilon(2.0, 2.0, 1, 1e-5)
    assert compose_mu(1.0, 1.0, 10**9) == pytest.approx(math.sqrt(1e9))
    assert gaussian_epsilon(1e6, 1.0, 10**9, 1e-5) < 1


def test_edges():
    """No rounds or nothing to hide → 0; no noise → ∞; an overflowing ε → ∞."""
    assert gaussian_epsilon(1.0, 1.0, 0, 1e-5) == 0
    assert gaussian_epsilon(1.0, 0.0, 5, 1e-5) == 0
    assert gaussian_epsilon(0.0, 1.0, 1, 1e-5) == math.inf
    assert gaussian_epsilon(1e-200, 1.0, 1, 1e-5) == math.inf
    assert gaussian_epsilon(1e9, 1.0, 1, 0.5) == 0
    assert gaussian_epsilon(1.0, 1.0, 10**400, 1e-5) == math.inf


@pytest.mark.parametrize(
    "bad",
    [
        {"sensitivity": math.inf},
        {"rounds": 1.5},
        {"delta": 0.0},
        {"delta": 1.0},
    ],
)
def test_bad_input_is_one_line(bad):
    """Each impossible value is refused by name."""
    good = {"sigma": 1.0, "sensitivity": 1.0, "rounds": 1, "delta": 1e-5}
    with pytest.raises(InputError, match=next(iter(bad))) as mistake:
        gaussian_epsilon(**{**good, **bad})
    assert "\n" not in str(mistake.value)
