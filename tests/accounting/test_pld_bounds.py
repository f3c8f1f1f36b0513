"""Both sides of the loss accountant: lower bound ≤ truth ≤ upper bound, and the two close.

Oracles: the definition of one step at 60 digits, the closed form of composed Gaussians, and
dp-accounting, which shares no code with ours.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.accounting import (
    FixedBatchGaussianEvent,
    GaussianEvent,
    LaplaceEvent,
    PLDAccountant,
    PoissonSampledGaussianEvent,
    calibrate_noise_multiplier,
    gaussian_epsilon,
)
from repro.accounting.composition import compose_epsilon, lower_epsilon
from repro.accounting.gaussian import epsilon_of_mu
from repro.accounting.pld import convert
from repro.accounting.pld.accountant import _epsilon, _lower_epsilon
from repro.accounting.pld.grid import merge, slip
from repro.accounting.pld.plan import for_delta
from repro.accounting.pld.profile import Step
from tests.accounting.oracles import delta_of_one_step, epsilon_of_one_step

WANTED = 0.01  # of the upper bound: what is promised between the two


def bounds(sigma, rate, count, delta):
    accountant = PLDAccountant().compose(PoissonSampledGaussianEvent(sigma, rate), count)
    return accountant.lower_epsilon(delta), accountant.epsilon(delta)[0]


@pytest.mark.parametrize("sigma", [0.4, 1.0, 20.0])
@pytest.mark.parametrize(("rate", "delta"), [(1e-6, 1e-9), (0.01, 1e-5), (0.9, 1e-12)])
def test_one_step_lies_between(sigma, rate, delta):
    lower, upper = bounds(sigma, rate, 1, delta)
    truth = epsilon_of_one_step(sigma, rate, delta)
    assert lower <= truth <= upper
    # A single, rare jump decides at q = 1e-6: there the two are not promised to be close.
    assert rate == 1e-6 or upper - lower <= WANTED * truth


@pytest.mark.parametrize(("sigma", "count", "delta"), [(0.4, 3, 1e-9), (20.0, 10**6, 1e-3)])
def test_composed_gaussians_lie_between(sigma, count, delta):
    """Steps at rate 1, sent through grids and FFT instead of the formula, against the formula."""
    steps = ((sigma, 1.0, count),)
    truth = epsilon_of_mu(math.sqrt(count) / sigma, delta)
    lower, upper = _lower_epsilon(steps, 0.0, delta), _epsilon(steps, 0.0, delta)
    assert lower <= truth <= upper * (1 + 1e-10)
    assert upper - lower <= WANTED * truth


# σ, q, steps, δ at the ends of σ in [0.4, 20], q in [1e-6, 1], steps to 1e7, δ in [1e-12, 1e-2].
CORNERS = [
    (0.4, 1e-6, 10**7, 1e-12),
    (0.4, 1e-6, 10**4, 1e-8),
    (20.0, 1e-6, 10**7, 1e-12),
    (0.4, 0.5, 10**7, 1e-2),
    (20.0, 0.999, 10**7, 1e-12),
    (20.0, 1e-3, 10**7, 1e-2),
    (1.0, 1e-4, 10**6, 1e-6),
]


@pytest.mark.parametrize(("sigma", "rate", "count", "delta"), CORNERS)
def test_the_bounds_meet_over_the_whole_range(sigma, rate, count, delta):
    """Nobody else's number is needed: the truth is between, so both are within 1 % of it."""
    lower, upper = bounds(sigma, rate, count, delta)
    assert 0 < lower <= upper < math.inf
    # The second: some ten rare jumps at most. There the bound from below is 5.3 % off (that of
    # dp-accounting at 2e-5 is 16 %); ours from above is 0.03 % above theirs at 1e-4.
    assert upper - lower <= (6 if count == 10**4 else 1) * WANTED * upper


@pytest.mark.parametrize(
    ("sigma", "rate", "count", "theirs"),
    [
        # dp-accounting 0.6.0, connect the dots at an interval of 1e-4, δ = 1e-6; the last at
        # 1e-5, known to two digits.
        (1.0, 0.01, 1000, 2.124523),
        (1.0, 1e-3, 10**4, 0.555392),
        (0.7, 1e-3, 10**4, 1.636972),
        (0.7, 1e-4, 10**4, 0.159861),
        (0.6, 1e-4, 10**4, 0.532810),
        (0.7, 1e-5, 10**5, 0.0300),
    ],
)
def test_within_one_per_cent_of_dp_accounting(sigma, rate, count, theirs):
    """Small sample rates and many steps: it gave up early here, at up to 35 times this ε."""
    lower, upper = bounds(sigma, rate, count, 1e-6)
    assert lower <= theirs
    assert upper <= theirs * (1 + WANTED)


@given(
    sigma=st.floats(0.4, 20.0),
    log_rate=st.floats(-6.0, -0.01),
    log_count=st.floats(0.0, 5.0),
    log_delta=st.floats(-12.0, -2.0),
)
@settings(max_examples=8)
def test_the_lower_bound_is_below_the_upper_one(sigma, log_rate, log_count, log_delta):
    lower, upper = bounds(sigma, 10**log_rate, int(10**log_count), 10**log_delta)
    assert 0 <= lower <= upper < math.inf


@given(sigma=st.floats(0.3, 5.0), rate=st.floats(1e-4, 0.99), h=st.floats(0.01, 0.5))
@settings(max_examples=10)
def test_merged_outcomes_are_easier_to_mistake(sigma, rate, h):
    """δ of the merged step, at its own losses, is at most the exact one; its mass is at most 1."""
    for adding in (False, True):
        part = merge(Step(sigma, rate), adding, h, 1e-9)
        losses, masses = part.grid.losses + part.above, part.grid.masses
        assert 1 - 1e-6 < masses.sum() <= 1 + 1e-12
        for epsilon in (0.0, 0.3, 1.0):
            beyond = losses > epsilon
            merged = float(masses[beyond] @ -np.expm1(epsilon - losses[beyond]))
            exact = float(delta_of_one_step(sigma, rate, epsilon, adding))
            assert merged <= exact * (1 + 1e-9) + 1e-15


def test_the_slip_is_rarely_exceeded():
    """P(Σd < −t) at most 1e-3, against its exact value by convolution of 8 steps' d."""
    part = merge(Step(1.0, 0.2), False, 0.3, 1e-3)
    t = slip([(part, 8)], 1e-3)
    rng = np.random.default_rng(0)
    weights = part.grid.masses / part.grid.masses.sum()
    sums = part.above[rng.choice(len(weights), size=(200_000, 8), p=weights)].sum(axis=1)
    assert (sums < -t).mean() <= 1e-3  # Chernoff's bound is well above the truth: no false alarm
    assert (sums < -t / 4).mean() > 1e-3


def test_losses_that_are_overstated_are_taken_back():
    """Every merged loss 0.01 below its point of the grid: 8 steps' ε is 0.08 less."""
    step = Step(1.0, 0.2)
    where = for_delta([(step, 8)], False, 1e-5, 1e-4, 1 << 16, None)
    part = merge(step, False, where.spacing(where.needed), where.tail / 8)
    below = replace(part, above=part.above - 0.01)
    found, less = (convert.lower_epsilon([(p, 8)], where, 1e-5) for p in (part, below))
    assert found - less == pytest.approx(0.08, abs=1e-4)


def test_without_noise_nothing_is_below_infinity():
    """A record that is seen outright, with a probability above δ; else 0: nothing is known."""
    for event in (GaussianEvent(0.0), PoissonSampledGaussianEvent(0.0, 0.1)):
        assert PLDAccountant().compose(event).lower_epsilon(1e-5) == math.inf
    rarely = PLDAccountant().compose(PoissonSampledGaussianEvent(0.0, 1e-7))
    assert rarely.lower_epsilon(1e-5) == 0


def test_of_several_kinds():
    """Plain releases are exact; fixed batches have a bound from below too; Laplace has none."""
    gaussian = {GaussianEvent(5.0): 4}
    exact = gaussian_epsilon(5.0, 1.0, 4, 1e-5)
    assert lower_epsilon(gaussian, "add_remove", "record", 1e-5) == pytest.approx(exact, rel=1e-8)
    fixed = {FixedBatchGaussianEvent(1.0, 0.01): 1000}
    lower = lower_epsilon(fixed, "replace_one", "record", 1e-6)
    assert lower == bounds(1.0, 0.01, 1000, 1e-6)[0]
    assert 1 < lower < compose_epsilon(fixed, "replace_one", "record", 1e-6).epsilon
    assert lower_epsilon({LaplaceEvent(1.0): 1}, "add_remove", "record", 1e-6) == 0
    assert PLDAccountant().lower_epsilon(1e-5) == 0


def test_calibrated_noise_is_enough_and_hardly_more():
    """By the tight accountant at q = 1e-3: the target is met, and 2 % less noise breaks it."""
    sigma, reached = calibrate_noise_multiplier(0.5, 1e-6, 1e-3, 2000, accountant="pld")
    _, upper = bounds(sigma, 1e-3, 2000, 1e-6)
    assert reached == upper <= 0.5
    assert bounds(sigma * 0.98, 1e-3, 2000, 1e-6)[0] > 0.5
    assert sigma < calibrate_noise_multiplier(0.5, 1e-6, 1e-3, 2000, accountant="rdp")[0]
