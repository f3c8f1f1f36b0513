"""As the federation's aggregator: FedAvg to within quantisation, through drop-outs, repeatably."""

from __future__ import annotations

import numpy as np
import pytest

from repro.errors import InputError
from repro.random import RootSeed
from repro.secagg import RoundFailed, SecAggSettings, SecureAggregator
from repro.secagg.rounds import PHASES

SEED = RootSeed.from_user(1)
SIZES = [874, 1038, 608, 1304, 740, 1172, 872, 1041, 900, 1013]  # the paper's K = 10
DIMENSION = 5000


def updates_of(hospitals, seed=0, scale=0.05):
    random = np.random.default_rng(seed)
    return {
        one: (scale * random.standard_normal(DIMENSION)).astype(np.float32) for one in hospitals
    }


def fedavg(updates, weights):
    total = sum(weights[one] * vector.astype(np.float64) for one, vector in updates.items())
    return total / sum(weights[one] for one in updates)


@pytest.fixture
def aggregator():
    return SecureAggregator(SecAggSettings(max_weight=2000), range(10))


def aggregate(aggregator, updates, weights=None, **more):
    options = {"round": 1, "seed": SEED, **more}
    return aggregator.aggregate(updates, weights or dict(enumerate(SIZES)), **options)


@pytest.mark.parametrize("bits", [31, 61])
def test_differs_from_fedavg_by_quantisation_only(bits):
    """Within the stated bound in every coordinate, and the bound is below 2e-7 at the paper's
    size, weights and range."""
    settings = SecAggSettings(max_weight=2000, field_bits=bits)
    updates, weights = updates_of(range(10)), dict(enumerate(SIZES))
    result = aggregate(SecureAggregator(settings, range(10)), updates)
    assert np.abs(result.mean - fedavg(updates, weights)).max() <= result.max_error_bound
    assert result.max_error_bound < 2e-7
    assert result.mean.dtype == np.float64
    assert result.weight == sum(SIZES)
    assert result.survivors == tuple(range(10))
    assert result.dropped == ()
    assert result.clipped_count == 0


def test_same_seed_same_bits_whatever_the_keys():
    """Identities, keys and session differ in every aggregator; the result does not."""
    updates = updates_of(range(10))
    one, other = (
        aggregate(SecureAggregator(SecAggSettings(), range(10)), updates) for _ in range(2)
    )
    np.testing.assert_array_equal(one.mean, other.mean)
    third = aggregate(SecureAggregator(SecAggSettings(), range(10)), updates, round=2)
    assert (third.mean != one.mean).any()


def test_hospitals_leave_in_mid_run(aggregator):
    """Rounds with losses in every phase, a failed one and a full one again, in one instance."""
    weights = dict(enumerate(SIZES))
    for number, phase in enumerate(PHASES):
        updates = updates_of(range(10), seed=number)
        result = aggregate(aggregator, updates, round=number, drop={phase: {number}})
        survivors = set(range(10)) - (
            {number} if PHASES.index(phase) <= PHASES.index("masked") else set()
        )
        assert set(result.survivors) == survivors
        assert result.dropped == (number,)
        mean = fedavg({one: updates[one] for one in survivors}, weights)
        assert np.abs(result.mean - mean).max() <= result.max_error_bound
    with pytest.raises(RoundFailed):
        aggregate(aggregator, updates, round=7, drop={"masked": set(range(5))})
    result = aggregate(aggregator, updates, round=7)
    assert np.abs(result.mean - fedavg(updates, weights)).max() <= result.max_error_bound


def test_a_hospital_without_an_update_is_lost_before_its_masked_input(aggregator):
    updates = updates_of(range(9))
    result = aggregate(aggregator, iter(updates.items()))
    assert result.survivors == tuple(range(9))
    assert result.dropped == (9,)
    mean = fedavg(updates, dict(enumerate(SIZES)))
    assert np.abs(result.mean - mean).max() <= result.max_error_bound


def test_noisy_updates_are_ordinary_vectors():
    """Gaussian noise of σ = 0.699 stays inside ±8; what lies outside is clipped and counted."""
    updates = updates_of(range(10), scale=0.698873)
    updates[3][:7] = 100.0
    updates[4][0] = -8.0000095  # the next float32 below −8
    result = aggregate(SecureAggregator(SecAggSettings(), range(10)), updates)
    assert result.clipped_count == 8
    clipped = {one: np.clip(v, -8, 8) for one, v in updates.items()}
    mean = fedavg(clipped, dict(enumerate(SIZES)))
    assert np.abs(result.mean - mean).max() <= result.max_error_bound


def test_record_of_phases_bytes_and_times(aggregator):
    result = aggregate(aggregator, updates_of(range(10)))
    for record in (
        result.up_bytes,
        result.down_bytes,
        result.hospital_seconds,
        result.server_seconds,
    ):
        assert tuple(record) == PHASES
    assert result.up_bytes["masked"] == 10 * (4 * (DIMENSION + 2) + 184)
    assert all(seconds > 0 for seconds in result.server_seconds.values())
    assert result.hospital_seconds["masked"] > 0  # encoding is part of it
    assert result.excluded == {}


@pytest.mark.parametrize("hospitals", [2, 3, 4, 5])
def test_small_federations_are_complete_graphs(hospitals):
    """Below five hospitals the paper's 5 shares do not exist: all are neighbours, a majority."""
    updates = updates_of(range(hospitals))
    weights = dict.fromkeys(range(hospitals), 7.0)
    result = aggregate(
        SecureAggregator(SecAggSettings(), range(hospitals)), updates, weights, round=3
    )
    assert np.abs(result.mean - fedavg(updates, weights)).max() <= result.max_error_bound


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"weights": {0: 1}}, "weights"),
        ({"weights": dict.fromkeys(range(10), 2001)}, "weight"),
        ({"weights": dict.fromkeys(range(10), 0.5)}, "weight"),
        ({"updates": {99: np.zeros(3)}}, "updates"),
        ({"updates": {0: np.zeros(3), 1: np.zeros(4)}}, "updates"),
        ({"updates": dict.fromkeys(range(10), np.full(3, np.nan))}, "vector"),
        ({"drop": {"lunch": {0}}}, "drop"),
    ],
)
def test_bad_input(aggregator, change, field):
    arguments = {"updates": updates_of(range(10)), "weights": dict(enumerate(SIZES)), **change}
    with pytest.raises(InputError) as caught:
        aggregate(aggregator, arguments.pop("updates"), **arguments)
    assert caught.value.field == field


def test_bad_settings_are_found_at_construction():
    for settings in (
        {"threshold": 2},
        {"field_bits": 32},
        {"max_weight": 2**31},
        {"neighbours": 5},
    ):
        with pytest.raises(InputError):
            SecureAggregator(SecAggSettings(**settings), range(10))
    with pytest.raises(InputError):
        SecureAggregator(SecAggSettings(), [1, 1, 2])


SAME = dict.fromkeys(range(10), np.zeros(5, np.float32))


def sizes_by_difference(aggregator, weights):
    """What the server works out from the total weights of rounds that differ by one hospital."""
    total = aggregate(aggregator, SAME, weights).weight
    return {
        one: total - aggregate(aggregator, SAME, weights, drop={"masked": {one}}).weight
        for one in (0, 4, 9)
    }


def test_equal_weights_hide_the_sizes_that_differences_show():
    """With weights, rounds with and without a hospital give its size away, which is documented;
    with equal weights they give away that it took part."""
    weights = dict(enumerate(SIZES))
    weighted = SecureAggregator(SecAggSettings(), range(10))
    assert sizes_by_difference(weighted, weights) == {one: SIZES[one] for one in (0, 4, 9)}
    equal = SecureAggregator(SecAggSettings(equal_weights=True), range(10))
    assert set(sizes_by_difference(equal, weights).values()) == {1}


def test_equal_weights_give_the_plain_mean():
    updates = updates_of(range(10))
    equal = SecureAggregator(SecAggSettings(equal_weights=True, max_weight=1), range(10))
    result = aggregate(equal, updates)
    mean = sum(vector.astype(float) for vector in updates.values()) / 10
    assert np.abs(result.mean - mean).max() <= result.max_error_bound < 1e-7


def test_below_the_fewest_survivors_nothing_is_unmasked():
    """Where the shares alone would do: 8 of 10 are left, 9 are asked for."""
    lost = {"masked": {0, 4}}
    for fewest in (2, 8, 9):
        settings = SecAggSettings(threshold=6, neighbours=9, minimum_survivors=fewest)
        aggregator = SecureAggregator(settings, range(10))
        if fewest < 9:
            assert len(aggregate(aggregator, SAME, drop=lost).survivors) == 8
            continue
        with pytest.raises(RoundFailed, match="masked: 8 hospitals left; needed 9 survivors"):
            aggregate(aggregator, SAME, drop=lost)
        assert len(aggregate(aggregator, SAME).survivors) == 10


def test_a_hospital_lost_before_anything_takes_part_in_the_next_round(aggregator):
    """It has counted the round that was held without it."""
    assert 3 not in aggregate(aggregator, SAME, drop={"advertise": {3}}).survivors
    assert 3 in aggregate(aggregator, SAME).survivors
    with pytest.raises(InputError):
        aggregate(aggregator, SAME, drop={"lunch": {3}})  # and no round is held by mistake
    assert 3 in aggregate(aggregator, SAME).survivors
