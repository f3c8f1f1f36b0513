"""Composition and (ε, δ): golden values, properties, refusals, and saved state."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.accounting import (
    ComposedEvent,
    DataDependentRateEvent,
    DiscreteGaussianEvent,
    FixedBatchGaussianEvent,
    GaussianEvent,
    LaplaceEvent,
    NonPrivateEvent,
    PoissonSampledGaussianEvent,
    RDPAccountant,
    RepeatedEvent,
    ShuffledBatchesEvent,
    compose_epsilon,
    event_from_dict,
    gaussian_epsilon,
)
from repro.accounting.composition import CHOICES
from repro.accounting.curves import rdp_laplace
from repro.errors import InputError

ANCHOR = PoissonSampledGaussianEvent(1.1, 64 / 11959)


def epsilon(event, count=1, delta=1e-5, relation="add_remove", unit="record"):
    return RDPAccountant(relation, unit).compose(event, count).epsilon(delta)[0]


def test_anchor():
    """q = 64/11959, σ = 1.1, 9,342 steps, δ = 1e-5: 2.679 tight, 3.101 by Mironov's rule."""
    accountant = RDPAccountant().compose(ANCHOR, 9342)
    assert accountant.epsilon(1e-5)[0] == pytest.approx(2.679, abs=5e-4)
    orders = np.linspace(2, 20, 20_000)
    mironov = accountant.rdp(orders) - math.log(1e-5) / (orders - 1)  # 2017, Proposition 3
    assert mironov.min() == pytest.approx(3.101, abs=5e-4)


# (noise multiplier, sample rate); the events are made inside the tests.
steps = st.tuples(st.floats(0.3, 20.0), st.floats(1e-5, 0.9))


@given(step=steps, count=st.integers(1, 10**6), delta=st.floats(1e-12, 0.1))
@settings(max_examples=60)
def test_epsilon_is_the_best_of_a_fine_grid(step, count, delta):
    """No order of a fine grid beats the order found by more than 1e-6, and that one is valid."""
    event = PoissonSampledGaussianEvent(*step)
    from repro.accounting.conversion import epsilon_from_rdp

    accountant = RDPAccountant().compose(event, count)
    best, order = accountant.epsilon(delta)
    grid = 1 + np.geomspace(1e-4, 300.0, 600)
    assert best <= epsilon_from_rdp(grid, accountant.rdp(grid), delta).min() * (1 + 1e-6)
    at_order = np.array([order])
    valid = epsilon_from_rdp(at_order, accountant.rdp(at_order), delta)[0]
    assert best == 0 or best == pytest.approx(valid, rel=1e-11)


@given(step=steps, count=st.integers(1, 10**5), delta=st.floats(1e-10, 0.05))
@settings(max_examples=60)
def test_monotone(step, count, delta):
    """ε never falls with more steps, a higher rate, less noise or a smaller δ.

    The search's optimum is itself accurate to 1e-7, so changes are 1 % and slack is 1e-7.
    """
    event = PoissonSampledGaussianEvent(*step)
    base = epsilon(event, count, delta) * (1 - 1e-7)
    louder = PoissonSampledGaussianEvent(event.noise_multiplier * 0.99, event.sample_rate)
    denser = PoissonSampledGaussianEvent(event.noise_multiplier, event.sample_rate * 1.01)
    assert epsilon(event, count + 1 + count // 100, delta) >= base
    assert epsilon(louder, count, delta) >= base
    assert epsilon(denser, count, delta) >= base
    assert epsilon(event, count, delta * 0.99) >= base


@given(step=steps, count=st.integers(1, 10**5), at=st.floats(0.01, 20.0))
@settings(max_examples=40)
def test_delta_and_epsilon_are_inverse(step, count, at):
    """δ(ε) falls with ε, and ε at that δ is not above the ε it came from."""
    event = PoissonSampledGaussianEvent(*step)
    accountant = RDPAccountant().compose(event, count)
    delta = accountant.delta(at)
    assert 0 < delta <= 1
    assert accountant.delta(at * 1.1) <= delta * (1 + 1e-6)
    if 1e-290 < delta < 1:
        assert accountant.epsilon(delta)[0] <= at * (1 + 1e-6)


@given(
    parts=st.lists(st.tuples(steps, st.integers(0, 1000)), min_size=1, max_size=4), data=st.data()
)
@settings(max_examples=30)
def test_order_and_grouping_of_composition_do_not_matter(parts, data):
    """Any permutation, and any split of the counts, gives the same bits."""
    shuffled = data.draw(st.permutations(parts))
    one = RDPAccountant()
    for step, count in parts:
        one.compose(PoissonSampledGaussianEvent(*step), count)
    other = RDPAccountant()
    for step, count in shuffled:
        event = PoissonSampledGaussianEvent(*step)
        other.compose(RepeatedEvent(event, count // 2)).compose(event, count - count // 2)
    assert one.epsilon(1e-6) == other.epsilon(1e-6)
    assert one.state_dict() == other.state_dict()


def test_nested_events_are_flattened():
    """A composition of repetitions equals its leaves composed one by one."""
    noise = GaussianEvent(5.0)
    nested = RepeatedEvent(ComposedEvent((RepeatedEvent(ANCHOR, 3), noise)), 7)
    flat = RDPAccountant().compose(ANCHOR, 21).compose(noise, 7)
    assert dict(RDPAccountant().compose(nested).counts) == dict(flat.counts)
    # Equal leaves of different events add up, whatever proof is asked.
    mixed, alone = {nested: 2, noise: 3, ComposedEvent((noise, ANCHOR)): 1}, {ANCHOR: 43, noise: 18}
    for accountant in CHOICES:
        found, expected = (
            compose_epsilon(counts, "add_remove", "record", 1e-6, accountant=accountant)
            for counts in (mixed, alone)
        )
        assert found == expected


def test_gaussian_rdp_is_close_to_and_above_exact():
    """RDP of unsampled Gaussian releases: above the exact ε, by less than 15 %."""
    for sigma, rounds, delta in [(5.0, 50, 1e-5), (40.0, 50, 1.9e-4), (1.0, 1, 1e-9)]:
        exact = gaussian_epsilon(sigma, 1.0, rounds, delta)
        assert exact <= epsilon(GaussianEvent(sigma), rounds, delta) <= exact * 1.15


def test_replace_one_doubles_the_sensitivity():
    """The same noise protects a replacement half as well: asked of the event, not assumed."""
    event = GaussianEvent(4.0)
    assert (event.sensitivity("add_remove"), event.sensitivity("replace_one")) == (1.0, 2.0)
    doubled = epsilon(event, 10, relation="replace_one")
    assert doubled == epsilon(GaussianEvent(2.0), 10)


def test_laplace():
    """Never above pure DP; orders near 1 near the KL divergence y + e^−y − 1."""
    for multiplier in (0.01, 0.5, 3.0, 1e4):
        y = 1 / multiplier
        values = rdp_laplace(multiplier, np.array([1 + 1e-7, 2.0, 50.0, 1e6]))
        kl = y + math.expm1(-y) if y > 1e-3 else y * y / 2
        assert values[0] == pytest.approx(kl, rel=1e-3)
        assert np.all(np.diff(values) >= 0)
        assert values[-1] <= y * (1 + 1e-11)
    assert epsilon(LaplaceEvent(0.5), delta=1e-12) <= 2 * (1 + 1e-11)


def test_laplace_against_fifty_digits():
    """The closed form at 50 digits: within 1e-11 above it, never below."""
    import mpmath

    for multiplier in (0.05, 0.7, 3.0, 1e3, 1e6):
        for order in (1.001, 1.5, 7.25, 300.0):
            got = float(rdp_laplace(multiplier, np.array([order]))[0])
            with mpmath.workdps(50):
                y, alpha = 1 / mpmath.mpf(multiplier), mpmath.mpf(order)
                a = alpha - 1
                grown = alpha * mpmath.exp(a * y) + a * mpmath.exp(-alpha * y)
                exact = mpmath.log(grown / (2 * alpha - 1)) / a
            assert exact <= got <= exact * (1 + 1e-11)


def test_discrete_gaussian_is_bounded_by_the_continuous():
    """The continuous bound covers the divergence of two discrete Gaussians, summed directly."""
    sigma, order = 0.8, 3.5
    n = np.arange(-25, 26)
    p, q = (np.exp(-((n - shift) ** 2) / (2 * sigma**2)) for shift in (1, 0))
    p, q = p / p.sum(), q / q.sum()
    true = np.log(np.sum(p * (p / q) ** (order - 1))) / (order - 1)
    bound = RDPAccountant().compose(DiscreteGaussianEvent(sigma)).rdp(np.array([order]))[0]
    assert true <= bound * (1 + 1e-9)


@pytest.mark.parametrize(
    ("event", "relation"),
    [
        (PoissonSampledGaussianEvent(1.0, 0.1), "replace_one"),
        (FixedBatchGaussianEvent(1.0, 0.1), "add_remove"),
        (ShuffledBatchesEvent(1.0, 32), "add_remove"),
        (ShuffledBatchesEvent(1.0, 32), "replace_one"),
        (DataDependentRateEvent(1.0), "add_remove"),
        (DataDependentRateEvent(1.0), "replace_one"),
        (RepeatedEvent(PoissonSampledGaussianEvent(1.0, 0.1), 3), "replace_one"),
        (ComposedEvent((GaussianEvent(1.0), DataDependentRateEvent(1.0))), "add_remove"),
        (GaussianEvent(1.0, unit="hospital"), "add_remove"),
    ],
)
def test_what_has_no_proof_is_refused(event, relation):
    """Wrong sampling, wrong relation, wrong unit: one clear line, and nothing composed."""
    accountant = RDPAccountant(relation)
    with pytest.raises(InputError) as refusal:
        accountant.compose(event, 2)
    assert "\n" not in str(refusal.value)
    assert not accountant.counts


def test_rate_one_is_proved_under_both_relations():
    """Without sampling, replace-one is a Gaussian of twice the sensitivity."""
    sampled, plain = PoissonSampledGaussianEvent(3.0, 1.0), GaussianEvent(3.0)
    for relation in ("add_remove", "replace_one"):
        assert epsilon(sampled, 5, relation=relation) == epsilon(plain, 5, relation=relation)


def test_edges():
    """Nothing → (0, ∞); no noise → (∞, ∞); rate 0 → 0; 10⁹ and 10⁴⁰⁰ steps are no trouble."""
    assert RDPAccountant().epsilon(1e-5) == (0.0, math.inf)
    assert RDPAccountant().compose(ANCHOR, 0).epsilon(1e-5) == (0.0, math.inf)
    assert RDPAccountant().delta(1.0) == 0.0
    assert RDPAccountant().compose(NonPrivateEvent()).epsilon(1e-5) == (math.inf, math.inf)
    assert RDPAccountant().compose(NonPrivateEvent()).delta(5.0) == 1.0
    assert epsilon(PoissonSampledGaussianEvent(0.0, 0.1)) == math.inf
    assert epsilon(PoissonSampledGaussianEvent(1.0, 0.0), 10**9) == 0
    assert 1e3 < epsilon(ANCHOR, 10**9) < math.inf
    assert epsilon(ANCHOR, 10**400) == math.inf  # more than a float can count
    assert epsilon(PoissonSampledGaussianEvent(1e-3, 0.1)) > 1e3
    assert epsilon(GaussianEvent(1e6), 1) < 1e-4


def test_the_grid_widens_instead_of_stopping_at_its_edge():
    """Optima far below and far above the starting orders (1.03 … 65) are found."""
    low = RDPAccountant().compose(GaussianEvent(1.0), 10**9).epsilon(1e-5)
    high = RDPAccountant().compose(GaussianEvent(1000.0), 1).epsilon(1e-9)
    assert low[1] < 1.001
    assert low[0] == pytest.approx(gaussian_epsilon(1.0, 1.0, 10**9, 1e-5), rel=1e-3)
    assert high[1] > 1000


def test_kl_branch():
    """A δ above the total variation bound needs no ε; one below the true distance needs some."""
    for sigma in (0.2, 1.0, 100.0):
        accountant = RDPAccountant().compose(GaussianEvent(sigma))
        bound = math.sqrt(-math.expm1(-1 / (2 * sigma**2)))
        assert accountant.epsilon(min(bound * 1.001, 1 - 1e-9))[0] == 0
        true = math.erf(1 / (sigma * math.sqrt(8)))
        assert accountant.epsilon(true * 0.999)[0] > 0
        assert true <= accountant.delta(0.0) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("delta", [0.0, 1.0, 1.5, math.inf])
def test_bad_delta_and_count(delta):
    with pytest.raises(InputError, match="delta"):
        RDPAccountant().compose(ANCHOR).epsilon(delta)
    for count in (1.5, math.inf):
        with pytest.raises(InputError, match="count"):
            RDPAccountant().compose(ANCHOR, count)


@given(events=st.lists(st.tuples(steps, st.integers(1, 10**12)), max_size=4))
@settings(max_examples=30)
def test_state_survives_json_exactly(events):
    """Through JSON and back: equal counts, hence the same bits of ε; composing goes on."""
    accountant = RDPAccountant()
    for step, count in events:
        accountant.compose(PoissonSampledGaussianEvent(*step), count)
    restored = RDPAccountant("replace_one", "hospital")
    restored.load_state_dict(json.loads(json.dumps(accountant.state_dict())))
    assert restored.state_dict() == accountant.state_dict()
    assert restored.epsilon(1e-5) == accountant.epsilon(1e-5)
    accountant.compose(ANCHOR, 5)
    restored.compose(ANCHOR, 5)
    assert restored.epsilon(1e-5) == accountant.epsilon(1e-5)


def test_a_bad_state_changes_nothing():
    """A state with an event it has no proof for, or an unknown one, leaves the spend as it was."""
    accountant = RDPAccountant().compose(ANCHOR, 3)
    before = accountant.state_dict()
    bad = RDPAccountant().compose(ANCHOR).state_dict()
    for broken in (
        {**bad, "relation": "replace_one"},
        {**bad, "spent": [{"event": {"type": "Magic"}, "count": 1}]},
        {"spent": []},
    ):
        with pytest.raises(InputError):
            accountant.load_state_dict(broken)
    assert accountant.state_dict() == before


@pytest.mark.parametrize(
    "event",
    [
        NonPrivateEvent(unit="hospital"),
        GaussianEvent(0.1),
        DiscreteGaussianEvent(2),
        LaplaceEvent(1 / 3),
        ANCHOR,
        FixedBatchGaussianEvent(1.5, 0.25),
        ShuffledBatchesEvent(1.0, 32),
        DataDependentRateEvent(1.0),
        RepeatedEvent(ComposedEvent((ANCHOR, GaussianEvent(2.0))), 4),
    ],
)
def test_events_survive_json(event):
    """``event_from_dict`` inverts ``as_dict`` through JSON."""
    assert event_from_dict(json.loads(json.dumps(event.as_dict()))) == event


@pytest.mark.parametrize(
    "make",
    [
        lambda: PoissonSampledGaussianEvent(1.0, 1.1),
        lambda: GaussianEvent(1.0, unit="patient"),
        lambda: RepeatedEvent(ANCHOR, -2),
        lambda: RDPAccountant("substitute"),
        lambda: RDPAccountant(unit="patient"),
    ],
)
def test_impossible_events_are_refused(make):
    with pytest.raises(InputError):
        make()
