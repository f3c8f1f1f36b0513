"""The privacy loss accountant: never below the truth, close above it, and what it refuses.

Independent oracles: the closed form of one sampled step at 60 digits (mpmath), the closed form
of composed Gaussians, and dp-accounting's bounds from both sides.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.accounting import (
    ComposedEvent,
    DiscreteGaussianEvent,
    FixedBatchGaussianEvent,
    GaussianEvent,
    LaplaceEvent,
    NonPrivateEvent,
    PLDAccountant,
    PoissonSampledGaussianEvent,
    RDPAccountant,
    RepeatedEvent,
    compose_epsilon,
    gaussian_epsilon,
)
from repro.accounting.gaussian import epsilon_of_mu, log_delta_of_mu
from repro.accounting.pld import accounts_for
from repro.accounting.pld.accountant import _delta, _Direction, _epsilon, _largest_added, _parts
from repro.accounting.pld.compose import EXTENDED, convolve, fast_length
from repro.accounting.pld.grid import connect_dots
from repro.accounting.pld.plan import for_delta
from repro.accounting.pld.profile import Step
from repro.errors import InputError
from tests.accounting.oracles import delta_of_one_step, epsilon_of_one_step

TOLERANCE = 1e-3  # documented: less than 0.1 % above the truth


def sampled(sigma, rate, count=1):
    return PLDAccountant().compose(PoissonSampledGaussianEvent(sigma, rate), count)


@pytest.mark.parametrize("sigma", [0.01, 0.021, 0.3, 7.0, 100.0])
@pytest.mark.parametrize("rate", [1e-4, 0.02, 0.5, 0.999])
def test_one_step_against_its_closed_form(sigma, rate):
    """σ from 0.01 to 100, q from 1e-4 to 1: never below the truth, less than 0.1 % above it."""
    for delta in (1e-3, 1e-7):
        got, _ = sampled(sigma, rate).epsilon(delta)
        truth = epsilon_of_one_step(sigma, rate, delta)
        assert truth <= got <= truth * (1 + TOLERANCE) + 1e-12


@given(sigma=st.floats(0.3, 3.0), rate=st.floats(1e-3, 0.99), epsilon=st.floats(0.01, 4.0))
@settings(max_examples=5)
def test_delta_of_one_step_against_its_closed_form(sigma, rate, epsilon):
    """δ(ε), the other way round: never below, and within 1 % where it is not tiny."""
    got = sampled(sigma, rate).delta(epsilon)
    truth = max(delta_of_one_step(sigma, rate, epsilon, adding) for adding in (False, True))
    assert got >= truth
    if truth > 1e-20:
        assert got <= truth * 1.01


@pytest.mark.parametrize("sigma", [0.5, 30.0])
@pytest.mark.parametrize("count", [10, 5000])
def test_composition_against_the_closed_form(sigma, count):
    """Steps at rate 1, sent through grid and FFT instead of the formula, against the formula."""
    for delta in (1e-4, 1e-10):
        got = _epsilon(((sigma, 1.0, count),), 0.0, delta)
        truth = epsilon_of_mu(math.sqrt(count) / sigma, delta)
        assert truth * (1 - 1e-10) <= got <= truth * (1 + TOLERANCE)
        back = _delta(((sigma, 1.0, count),), 0.0, truth)
        exact = math.exp(log_delta_of_mu(math.sqrt(count) / sigma, truth))
        assert exact * (1 - 1e-9) <= back <= exact * 1.03


def test_composition_of_unlike_steps_against_the_closed_form():
    """Two kinds at rate 1 and a plain Gaussian: μ² adds up."""
    steps, mu = ((3.0, 1.0, 40), (8.0, 1.0, 500)), 0.7
    got = _epsilon(steps, mu, 1e-6)
    truth = epsilon_of_mu(math.sqrt(40 / 9 + 500 / 64 + 0.49), 1e-6)
    assert truth <= got <= truth * (1 + TOLERANCE)


@pytest.mark.parametrize(
    ("sigma", "rate", "count", "delta"),
    [(1.1, 64 / 11959, 100, 1e-5), (4.0, 0.2, 100, 1e-4), (1.2, 0.1, 40, 1e-4)],
)
def test_between_the_bounds_of_dp_accounting(sigma, rate, count, delta):
    """Above its lower bound, and within 0.1 % of its upper one."""
    pytest.importorskip("dp_accounting")
    from repro.bench.pld import pld_epsilon

    event = PoissonSampledGaussianEvent(sigma, rate)
    got, _ = sampled(sigma, rate, count).epsilon(delta)
    upper = pld_epsilon({event: count}, delta)
    lower = pld_epsilon({event: count}, delta, lower=True, interval=1e-2 * upper / count)
    assert lower <= got <= upper * (1 + TOLERANCE)
    assert lower >= 0.98 * upper


def test_unlike_events_between_the_bounds_of_dp_accounting():
    """Steps of two hospitals' kinds and a release of a noised statistic."""
    pytest.importorskip("dp_accounting")
    from repro.bench.pld import pld_epsilon

    counts = {
        PoissonSampledGaussianEvent(1.5, 0.05): 20,
        PoissonSampledGaussianEvent(0.9, 0.01): 10,
        GaussianEvent(4.0): 3,
    }
    accountant = PLDAccountant()
    for event, count in counts.items():
        accountant.compose(event, count)
    got, upper = accountant.epsilon(1e-5)[0], pld_epsilon(counts, 1e-5)
    lower = pld_epsilon(counts, 1e-5, lower=True, interval=1e-4)
    assert 0.98 * upper <= lower <= got <= upper * (1 + TOLERANCE)


steps = st.tuples(st.floats(0.3, 20.0), st.floats(1e-4, 0.9))
SLACK = 1 - 5e-4  # where the grid changes, ε jumps by at most this


@given(step=steps, count=st.integers(1, 3000), delta=st.floats(1e-9, 0.05))
@settings(max_examples=15)
def test_monotone(step, count, delta):
    """ε never falls with more steps, a higher rate, less noise or a smaller δ."""
    sigma, rate = step
    base = sampled(sigma, rate, count).epsilon(delta)[0] * SLACK
    assert sampled(sigma, rate, count + 1 + count // 100).epsilon(delta)[0] >= base
    assert sampled(sigma * 0.99, rate, count).epsilon(delta)[0] >= base
    assert sampled(sigma, rate * 1.01, count).epsilon(delta)[0] >= base
    assert sampled(sigma, rate, count).epsilon(delta * 0.99)[0] >= base


@given(step=steps, count=st.integers(1, 3000), delta=st.floats(1e-8, 0.05))
@settings(max_examples=15)
def test_not_above_rdp(step, count, delta):
    """RDP and its conversion give away more than the grid does."""
    event = PoissonSampledGaussianEvent(*step)
    tight = PLDAccountant().compose(event, count).epsilon(delta)[0]
    assert tight <= RDPAccountant().compose(event, count).epsilon(delta)[0] * (1 + TOLERANCE)


@given(step=steps, count=st.integers(1, 1000), target=st.floats(1e-7, 0.01))
@settings(max_examples=5)
def test_delta_and_epsilon_are_inverse(step, count, target):
    accountant = sampled(*step, count)
    epsilon, _ = accountant.epsilon(target)
    if epsilon > 0.01:
        assert 0.97 * target <= accountant.delta(epsilon) <= 1.03 * target


@given(step=steps, spacing=st.floats(0.01, 0.5), adding=st.booleans())
@settings(max_examples=40)
def test_the_grid_dominates(step, spacing, adding):
    """At and between the grid's losses its δ is not below the exact one; its masses sum to 1."""
    sigma, rate = step
    grid = connect_dots(Step(sigma, rate), adding, spacing, 1e-12)
    assert grid.masses.sum() + grid.infinite == pytest.approx(1, abs=1e-9)
    for epsilon in np.linspace(0.0, 2.0, 7):
        above = grid.losses > epsilon
        shares = -np.expm1(epsilon - grid.losses[above])
        discrete = grid.infinite + float(grid.masses[above] @ shares)
        assert (
            discrete
            >= delta_of_one_step(sigma, rate, float(epsilon), adding) * (1 - 1e-14) - 1e-300
        )


def three_steps(delta):
    step = Step(1.0, 0.3)
    where = for_delta([(step, 3)], False, delta, 1e-4, 1 << 20, None)
    return where, connect_dots(step, False, 0.25, where.tail / 3)


def added_up(grid):
    """The losses of three steps, and their masses by brute force."""
    direct = np.convolve(np.convolve(grid.masses, grid.masses), grid.masses)
    return 0.25 * np.arange(3 * grid.first, 3 * grid.first + len(direct)), direct


def test_convolution_against_direct_summation():
    """Three losses added up by brute force: the FFT's two distributions are on either side."""
    where, grid = three_steps(1e-3)
    total = convolve([(grid, 3)], where)
    losses, direct = added_up(grid)
    for threshold in (0.5, 2.0, 4.0):
        exact = direct[losses > threshold].sum()
        beyond = total.losses > threshold
        above, below = total.masses[beyond].sum(), total.least[beyond].sum()
        assert exact <= above + total.infinite
        assert above <= exact * (1 + 1e-6) + total.wrapped(threshold)
        assert exact * (1 - 1e-6) - total.infinite <= below <= exact + total.wrapped(threshold)


@pytest.mark.parametrize("extended", [False, True])
def test_rounding_of_the_transform_is_on_the_safe_side(extended):
    """At every loss. Not tilted, so that 1e-16 of the largest mass is much of the smallest. In
    extended precision all that is left is 2000 times smaller."""
    where, grid = three_steps(1e-12)
    total = convolve([(grid, 3)], replace(where, tilt=0.0), extended=extended)
    if extended and EXTENDED:
        plain = convolve([(grid, 3)], replace(where, tilt=0.0))
        assert total.allowance(0.0) < plain.allowance(0.0) / 1000
    losses, direct = added_up(grid)
    place = np.rint(losses / 0.25).astype(int) - round(float(total.losses[0]) / 0.25)
    inside = (place >= 0) & (place < len(total.masses))
    assert direct[inside].min() < 1e-15
    assert np.all(total.masses[place[inside]] >= direct[inside] * (1 - 1e-14))


def test_epsilon_is_continuous_across_small_noise():
    """No jump anywhere: σ in steps of 6 %, from 0.01 to 0.1, moves ε by about twice that."""
    for rate, count in ((0.01, 1), (0.1, 20)):
        events = [PoissonSampledGaussianEvent(s, rate) for s in np.geomspace(0.01, 0.1, 40)]
        found = [
            compose_epsilon({event: count}, "add_remove", "record", 1e-5).epsilon
            for event in events
        ]
        ratios = np.array(found[:-1]) / np.array(found[1:])
        assert np.all((ratios > 1.03) & (ratios < 1.16))


def test_small_delta():
    """Down to δ = 1e-200 the FFT's rounding does not show: tilted, errors are relative."""
    got = _epsilon(((2.0, 1.0, 30),), 0.0, 1e-200)
    truth = epsilon_of_mu(math.sqrt(30) / 2, 1e-200)
    assert truth <= got <= truth * (1 + TOLERANCE)


def test_edges():
    """Nothing → 0; rate 0 → 0, however often; no noise or too many steps → ∞ (RDP has a bound)."""
    assert PLDAccountant().epsilon(1e-5)[0] == PLDAccountant().delta(1.0) == 0
    nothing = PLDAccountant().compose(PoissonSampledGaussianEvent(1.0, 0.0), 10**400)
    assert nothing.epsilon(1e-5)[0] == nothing.delta(0.5) == 0
    for event in (GaussianEvent(0.0), PoissonSampledGaussianEvent(0.0, 0.1)):
        assert PLDAccountant().compose(event).epsilon(1e-5)[0] == math.inf
        assert PLDAccountant().compose(event).delta(3.0) == 1
    step = PoissonSampledGaussianEvent(1.1, 0.005)
    for many in (10**400, 10**13):
        assert PLDAccountant().compose(step, many).epsilon(1e-5)[0] == math.inf
        assert PLDAccountant().compose(step, many).delta(1.0) == 1
    # δ above the sampling rate: the record may as well have been seen outright.
    assert PLDAccountant().compose(PoissonSampledGaussianEvent(0.05, 1e-4)).epsilon(1e-3)[0] == 0


def test_unsampled_releases_are_exact():
    for relation, factor in (("add_remove", 1.0), ("replace_one", 2.0), ("zero_out", 1.0)):
        accountant = PLDAccountant(relation).compose(GaussianEvent(5.0), 4)
        accountant.compose(PoissonSampledGaussianEvent(5.0, 1.0), 5)
        assert accountant.epsilon(1e-5)[0] == pytest.approx(
            gaussian_epsilon(5.0, factor, 9, 1e-5), rel=1e-11
        )


def test_sampling_at_rate_one_is_the_exact_gaussian():
    """Whatever accountant is asked last: a rate of 1 is no sampling."""
    counts = {PoissonSampledGaussianEvent(4.0, 1.0): 9}
    bound = compose_epsilon(counts, "add_remove", "record", 1e-5)
    assert (bound.epsilon, bound.method) == (gaussian_epsilon(4.0, 1.0, 9, 1e-5), "gaussian")


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (FixedBatchGaussianEvent(1.0, 0.1), "replace_one"),
        (LaplaceEvent(1.0), "add_remove"),
        (DiscreteGaussianEvent(1.0), "add_remove"),
        (NonPrivateEvent(), "add_remove"),
        (PoissonSampledGaussianEvent(1.0, 0.1), "replace_one"),
        (GaussianEvent(1.0, unit="hospital"), "add_remove"),
        (ComposedEvent((GaussianEvent(1.0), LaplaceEvent(1.0))), "add_remove"),
    ],
)
def test_what_it_does_not_account_for_is_refused(event, relation):
    accountant = PLDAccountant(relation)
    with pytest.raises(InputError, match="event"):
        accountant.compose(event)
    assert not accountant.counts


def test_one_event_out_of_reach_leaves_rdp_alone():
    """Best of all: where one event has no loss distribution here, RDP answers, and says so."""
    counts = {PoissonSampledGaussianEvent(1.0, 0.1): 10, LaplaceEvent(5.0): 1}
    assert not accounts_for(counts, "add_remove")
    bound = compose_epsilon(counts, "add_remove", "record", 1e-5)
    assert bound.method == "rdp"
    assert set(bound.by_method) == {"rdp"}
    with pytest.raises(InputError, match="LaplaceEvent"):
        compose_epsilon(counts, "add_remove", "record", 1e-5, accountant="pld")


def test_nested_events_and_any_order_are_the_same():
    step, other = PoissonSampledGaussianEvent(1.5, 0.1), PoissonSampledGaussianEvent(2.0, 0.2)
    one = PLDAccountant().compose(RepeatedEvent(ComposedEvent((step, other)), 5)).epsilon(1e-5)[0]
    two = PLDAccountant().compose(other, 2).compose(step, 5).compose(other, 3).epsilon(1e-5)[0]
    assert one == two


@given(st.integers(1, 10**7))
def test_fast_length(least):
    found = fast_length(least)
    assert least <= found <= max(8, 1.5 * least)
    assert found & (found - 1) == 0 or found % 3 == 0


def test_adding_a_rarely_drawn_record_is_bounded_where_no_grid_can():
    """Its losses all lie at their top, 50·log(1/(1 − q)) = 1.36, and removing decides: 80.5."""
    step = PoissonSampledGaussianEvent(0.2099534830990031, 0.02677264170675591)
    accountant = PLDAccountant().compose(step, 50)
    found, _ = accountant.epsilon(1e-5)
    assert accountant.lower_epsilon(1e-5) <= found <= 80.6
    assert accountant.delta(found) <= 1.1e-5
    # Elsewhere a grid's bound from below comes close to it, and not above.
    few = _Direction(_parts(((0.5, 0.5, 5),), 0.0), 1e-9, adding=True)
    few.refine()
    bound = _largest_added(few.parts)
    assert 0.99 * bound <= few.lower() <= few.epsilon <= bound
