"""Private totals: rounding, wrap, noise and drop-outs are what the plan and the proof say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from repro.accounting import GaussianEvent, PoissonSampledGaussianEvent, RDPAccountant
from repro.errors import InputError
from repro.federated.shared import NoisePlan, PlainIntegerSum, PrivateSum
from repro.federated.shared.sum import ProtocolSum, SumContext
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from repro.runs.settings import SecAggParameters
from repro.secagg import Field, RoundFailed, Traffic

SEED = RootSeed.from_user(7)
FEW = {"hospitals": 5, "colluders": 1, "drop_outs": 1}
SUMS = {"dimension": 300, "sensitivity": 0.5, "largest_sum": 40.0}
PLAN = NoisePlan(**FEW, **SUMS, noise_multiplier=1.3)
SECAGG = SecAggParameters(neighbours=4, threshold=4)


def sums(plan: NoisePlan, seed: int = 0, scale: float = 1.0) -> dict[int, np.ndarray]:
    stream = np.random.default_rng(seed)
    return {one: scale * stream.normal(size=plan.dimension) for one in range(plan.hospitals)}


def private_sum(plan: NoisePlan = PLAN, secagg: SecAggParameters | None = None) -> PrivateSum:
    return PrivateSum(plan, range(plan.hospitals), seed=SEED, purpose="test", secagg=secagg)


def test_the_protocol_gives_the_bits_of_the_plain_integer_sum():
    given_ = sums(PLAN)
    for lost in ((), (3,)):
        kept = {one: vector for one, vector in given_.items() if one not in lost}
        step = len(lost)
        with_protocol = private_sum(secagg=SECAGG).release(kept, round=1, step=step)
        without = private_sum(secagg=SECAGG).release(kept, round=1, step=step, protocol=False)
        assert with_protocol.protocol
        assert not without.protocol
        assert with_protocol.total.tobytes() == without.total.tobytes()
        assert with_protocol.survivors == without.survivors == tuple(sorted(kept))
        assert sum(with_protocol.up_bytes.values()) > 4 * PLAN.dimension * len(kept)


def test_total_is_the_sum_and_the_shares_to_half_a_step_a_hospital():
    """An oracle without the field: floats, and each hospital's share of the noise added by hand."""
    given_, sum_ = sums(PLAN), private_sum()
    release = sum_.release(given_, round=2, step=3)
    noise = sum(sum_.noise(one, round=2, step=3) for one in given_)
    expected = sum(given_.values()) + noise * PLAN.granularity
    assert np.abs(release.total - expected).max() <= PLAN.hospitals / 2 * PLAN.granularity * 1.001
    assert np.abs(noise).max() * PLAN.granularity > 1  # there was noise to speak of


def test_more_lost_than_planned_is_a_named_failure_and_the_next_sum_is_unharmed():
    for secagg in (None, SECAGG):
        sum_ = private_sum(secagg=secagg)
        few = {one: vector for one, vector in sums(PLAN).items() if one < 3}
        with pytest.raises(RoundFailed, match="needed 4"):
            sum_.release(few, round=1, step=0)
        assert len(sum_.release(sums(PLAN), round=1, step=1).survivors) == 5


def test_noise_within_the_plan_never_falls_below_the_accounted_variance():
    """For every coalition and every planned loss, the shares left keep the planned multiplier."""
    for lost in range(PLAN.drop_outs + 1):
        left = PLAN.hospitals - lost - PLAN.colluders
        deviation = math.sqrt(left) * PLAN.share_deviation
        assert deviation / PLAN.grid_sensitivity >= PLAN.multiplier(left) >= 1.3 * (1 - 1e-9)
    assert PLAN.multiplier(0) == 0


@settings(max_examples=40, deadline=None)
@given(error=st.floats(0, 2), sensitivity=st.floats(0.01, 10), lost=st.integers(0, 1))
def test_noise_is_the_multiplier_times_all_that_neighbours_can_differ_by(error, sensitivity, lost):
    """Of one record, of two sums each computed with an error, of rounding half a step each way."""
    plan = replace(PLAN, sensitivity=sensitivity, sum_error=error, drop_outs=lost)
    left = math.sqrt(plan.hospitals - 1 - lost) * plan.share_deviation
    apart = sensitivity + 2 * error + plan.granularity * math.sqrt(plan.dimension)
    assert 1.3 * apart <= left < 1.3 * apart * (1 + 1e-3)
    assert plan.multiplier(plan.shares) == pytest.approx(1.3, rel=1e-12)


def test_decoded_noise_has_the_planned_variance():
    """χ² on 60,000 coordinates; two-sided false alarm 1e-6 for each number of survivors."""
    plan = replace(PLAN, dimension=60_000, largest_sum=1.0)
    zeros = {one: np.zeros(plan.dimension) for one in range(plan.hospitals)}
    for lost in (0, 1):
        kept = {one: vector for one, vector in zeros.items() if one >= lost}
        total = private_sum(plan).release(kept, round=0, step=lost).total
        variance = len(kept) * plan.share_deviation**2
        statistic = float(np.sum(total**2)) / variance
        low, high = stats.chi2.interval(1 - 1e-6, plan.dimension)
        assert low < statistic < high
        # Half the noise, or one share too few, would be seen.
        assert not low < statistic * 0.9 < high
        # And it is the planned one against the coalition after the planned loss.
        coalition = (plan.shares / len(kept)) * variance
        wanted = (plan.noise_multiplier * plan.grid_sensitivity) ** 2
        assert coalition == pytest.approx(wanted, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    dimension=st.integers(1, 400),
    hospitals=st.integers(2, 40),
    sensitivity=st.floats(1e-3, 1e3),
    multiplier=st.floats(0.3, 30),
    records=st.integers(2, 100_000),
    bits=st.sampled_from([31, 61]),
    seed=st.integers(0, 2**32),
)
@example(1, 2, 1.0, 0.3, 100_000, 31, 0)
def test_neither_wrap_nor_rounding_breaks_a_total(
    dimension, hospitals, sensitivity, multiplier, records, bits, seed
):
    """At the largest sum allowed, in every hospital at once and either sign: no wrap, and the
    neighbour without one record is at most the grid sensitivity away, before noise."""
    try:
        plan = NoisePlan(
            hospitals=hospitals,
            dimension=dimension,
            sensitivity=sensitivity,
            noise_multiplier=multiplier,
            largest_sum=sensitivity * records,
            field_bits=bits,
            drop_outs=0,
        )
    except InputError as refused:  # a field too narrow must be refused, never wrapped in
        if refused.field != "field_bits":
            raise
        return
    noise_keys.clear()  # examples are worlds of their own, not uses of one key
    stream = np.random.default_rng(seed)
    signs = stream.choice([-1.0, 1.0], dimension)
    record = stream.normal(size=dimension)
    record *= sensitivity / np.linalg.norm(record)
    each = signs * plan.largest_sum / hospitals
    given_ = dict.fromkeys(range(hospitals), each)
    sum_ = PrivateSum(plan, range(hospitals), seed=SEED, purpose="test", secagg=None)
    release = sum_.release(given_, round=0, step=0)
    noise = sum(sum_.noise(one, round=0, step=0) for one in given_)
    expected = hospitals * each + noise * plan.granularity
    allowed = (hospitals / 2 + 1) * plan.granularity + 1e-9 * plan.largest_sum
    assert np.abs(release.total - expected).max() <= allowed
    # Rounding, on the neighbours' own integers: worlds apart again, under the same noise.
    noise_keys.clear()
    share = sum_.share(0, each * 0.5, round=0, step=0)
    noise_keys.clear()
    neighbour = sum_.share(0, each * 0.5 + record, round=0, step=0)
    moved = neighbour - share
    assert np.linalg.norm(moved) * plan.granularity <= plan.grid_sensitivity * (1 + 1e-9)


def test_wrap_itself_is_harmless_to_privacy_but_a_plan_leaves_no_room_for_it():
    """Signal and 14 deviations of noise fit: wrapping would take a part in 1e-43 a coordinate."""
    for bits in (31, 61):
        plan = replace(PLAN, field_bits=bits)
        signal = plan.largest_sum / plan.granularity + plan.hospitals / 2
        noise = 14 * math.sqrt(plan.hospitals) * plan.width.deviation
        assert signal + noise < Field(bits).modulus / 2


def test_events_name_the_shares_that_the_adversary_does_not_know():
    sampled = replace(PLAN, sample_rate=0.1)
    release = private_sum(sampled).release(sums(PLAN), round=1, step=0)
    coalition, outsider = release.event(), release.event(colluders=0)
    assert isinstance(coalition, PoissonSampledGaussianEvent)
    assert isinstance(outsider, PoissonSampledGaussianEvent)
    assert coalition.noise_multiplier == pytest.approx(1.3 * math.sqrt(4 / 3))  # nobody was lost
    assert outsider.noise_multiplier == pytest.approx(1.3 * math.sqrt(5 / 3))
    assert isinstance(PLAN.event(4), GaussianEvent)
    spent = [RDPAccountant().compose(e).epsilon(1e-5)[0] for e in (outsider, coalition)]
    assert spent[0] < spent[1]


def test_the_discrete_mechanism_is_as_good_as_the_continuous_one():
    """What the proof adds to ε and δ is below anything a float can show, and is computed."""
    assert 0 < PLAN.log_ratio < 1e-20
    assert 0 < PLAN.delta_slack < 1e-30
    small = replace(PLAN, field_bits=61)
    assert small.grid_sensitivity / small.sensitivity - 1 < 1e-6


def test_noise_is_never_used_twice():
    """Neither by one object, whose steps may only grow, nor by another one on other sums."""
    sum_ = private_sum()
    sum_.release(sums(PLAN), round=1, step=4)
    for round_, step in ((1, 4), (1, 3), (0, 9)):
        with pytest.raises(InputError, match="later than"):
            sum_.release(sums(PLAN, 1), round=round_, step=step)
    replayed = private_sum().release(sums(PLAN), round=1, step=4)
    fewer = {one: vector for one, vector in sums(PLAN).items() if one != 2}
    for other, whose in ((sums(PLAN, 1), "party 0"), (fewer, "all parties")):
        with pytest.raises(InputError, match=rf"noise key: got .{whose}, round 1, step 4 on"):
            private_sum().release(other, round=1, step=4)
    assert np.array_equal(replayed.total, private_sum().release(sums(PLAN), round=1, step=4).total)
    elsewhere = PrivateSum(PLAN, range(5), seed=SEED, purpose="other", secagg=None)
    elsewhere.release(sums(PLAN, 1), round=1, step=4)
    places = [(0, 1, 0), (1, 1, 0), (0, 1, 1), (0, 2, 0)]
    noises = [private_sum().noise(one, round=r, step=s) for one, r, s in places]
    noises.append(elsewhere.noise(0, round=1, step=0))
    for i, one in enumerate(noises):
        for other in noises[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.35  # 300 numbers: 6 deviations


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"colluders": 4}, "colluders"),
        ({"hospitals": 2}, "colluders"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"sensitivity": -1.0}, "sensitivity"),
        ({"largest_sum": 1e9}, "field_bits"),
        ({"dimension": 0}, "dimension"),
    ],
)
def test_plans_that_cannot_be_are_refused(change, field):
    with pytest.raises(InputError, match=field):
        replace(PLAN, **change)


def test_more_colluders_than_secure_aggregation_withstands_are_refused():
    plan = replace(PLAN, hospitals=12, colluders=3, drop_outs=2)
    with pytest.raises(InputError, match="at most 1"):
        PrivateSum(plan, range(12), seed=SEED, purpose="test", secagg=SECAGG)


@pytest.mark.parametrize("value", [np.nan, np.inf, 41.0])
def test_a_sum_that_cannot_be_is_refused(value):
    given_ = sums(PLAN)
    given_[2][5] = value
    with pytest.raises(InputError, match="sums"):
        private_sum().release(given_, round=0, step=0)


def test_wrong_shapes_and_strangers_are_refused():
    with pytest.raises(InputError, match="vectors of shape"):
        private_sum().release({0: np.zeros(299)}, round=0, step=0)
    with pytest.raises(InputError, match="ids of the plan"):
        private_sum().release({9: np.zeros(300)}, round=0, step=0)


def test_the_plain_sum_counts_heads_too():
    with pytest.raises(RoundFailed):
        PlainIntegerSum(PLAN).sum({0: np.zeros(300, dtype=np.int64)}, Traffic(), SumContext())


def test_hospitals_that_hold_another_model_are_in_another_round():
    """What is bound decides the context; of two contexts no common sum is unmasked (secagg's own
    tests), so here only that model, step, purpose and plan do enter it."""
    sum_ = ProtocolSum(PLAN, range(5), SECAGG)
    contexts = {
        sum_._round(1, bound).context
        for bound in (
            SumContext(),
            SumContext(model=bytes(31) + b"1"),
            SumContext(name=b"gradient, step 1"),
        )
    }
    other = ProtocolSum(replace(PLAN, noise_multiplier=1.2), range(5), SECAGG)
    other._party = sum_._party
    contexts.add(other._round(1, SumContext()).context)
    assert len(contexts) == 4
