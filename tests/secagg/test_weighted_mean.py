"""Rounds of updates and weights: FedAvg to within quantisation, through drop-outs, repeatably."""

from __future__ import annotations

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Encoding, Field, Party, RoundFailed
from repro.secagg.rounds import PHASES
from tests.secagg.parties import weighted_mean

SIZES = [874, 1038, 608, 1304, 740, 1172, 872, 1041, 900, 1013]  # the paper's K = 10
WEIGHTS = dict(enumerate(SIZES))
DIMENSION = 5000
SAME = dict.fromkeys(range(10), np.zeros(5, np.float32))


def updates_of(hospitals, seed=0, scale=0.05):
    random = np.random.default_rng(seed)
    return {
        one: (scale * random.standard_normal(DIMENSION)).astype(np.float32) for one in hospitals
    }


def fedavg(updates, weights):
    total = sum(weights[one] * vector.astype(np.float64) for one, vector in updates.items())
    return total / sum(weights[one] for one in updates)


@pytest.mark.parametrize("bits", [31, 61])
def test_differs_from_fedavg_by_quantisation_only(bits):
    """Within the stated bound in every coordinate, and the bound is below 2e-7 at the paper's
    size, weights and range."""
    updates, encoding = updates_of(range(10)), Encoding(Field(bits), 10, max_weight=2000)
    completed, decoded = weighted_mean(updates, WEIGHTS, encoding=encoding)
    assert np.abs(decoded.mean - fedavg(updates, WEIGHTS)).max() <= decoded.max_error_bound
    assert decoded.max_error_bound < 2e-7
    assert decoded.mean.dtype == np.float64
    assert decoded.weight == sum(SIZES)
    assert completed.survivors == tuple(range(10))
    assert decoded.clipped_count == 0
    assert completed.excluded == {}


def test_same_rounding_keys_same_bits_whatever_the_others():
    """Identities, masks and session differ in every party; the result does not."""
    updates, party = updates_of(range(10)), Party(range(10))
    _, one = weighted_mean(updates, WEIGHTS)
    _, other = weighted_mean(updates, WEIGHTS, party=party)
    np.testing.assert_array_equal(one.mean, other.mean)
    _, third = weighted_mean(updates, WEIGHTS, party=party, number=2)
    assert (third.mean != one.mean).any()


def test_hospitals_leave_in_mid_run():
    """Rounds with losses in every phase, a failed one and a full one again, of one party."""
    party = Party(range(10))
    for number, phase in enumerate(PHASES, start=1):
        updates = updates_of(range(10), seed=number)
        completed, decoded = weighted_mean(
            updates, WEIGHTS, party=party, number=number, drop={phase: {number}}
        )
        before = PHASES.index(phase) <= PHASES.index("masked")
        assert set(completed.survivors) == set(range(10)) - ({number} if before else set())
        mean = fedavg({one: updates[one] for one in completed.survivors}, WEIGHTS)
        assert np.abs(decoded.mean - mean).max() <= decoded.max_error_bound
    with pytest.raises(RoundFailed):
        weighted_mean(updates, WEIGHTS, party=party, number=7, drop={"masked": set(range(5))})
    _, decoded = weighted_mean(updates, WEIGHTS, party=party, number=8)
    assert np.abs(decoded.mean - fedavg(updates, WEIGHTS)).max() <= decoded.max_error_bound


def test_noisy_updates_are_ordinary_vectors():
    """Gaussian noise of σ = 0.699 stays inside ±8; what lies outside is clipped and counted."""
    updates = updates_of(range(10), scale=0.698873)
    updates[3][:7] = 100.0
    updates[4][0] = -8.0000095  # the next float32 below −8
    _, decoded = weighted_mean(updates, WEIGHTS)
    assert decoded.clipped_count == 8
    clipped = {one: np.clip(v, -8, 8) for one, v in updates.items()}
    assert np.abs(decoded.mean - fedavg(clipped, WEIGHTS)).max() <= decoded.max_error_bound


def test_record_of_phases_bytes_and_times():
    completed, _ = weighted_mean(updates_of(range(10)), WEIGHTS)
    traffic = completed.traffic
    for record in (
        traffic.up_bytes,
        traffic.down_bytes,
        traffic.hospital_seconds,
        traffic.server_seconds,
    ):
        assert tuple(record) == PHASES
    assert traffic.up_bytes["masked"] == 10 * (4 * (DIMENSION + 2) + 184)
    assert all(seconds > 0 for seconds in traffic.server_seconds.values())
    assert traffic.hospital_seconds["masked"] > 0  # encoding is part of it


def sizes_by_difference(weights, max_weight):
    """What the server works out from the total weights of rounds that differ by one hospital."""
    encoding = Encoding(Field(31), 10, max_weight=max_weight)
    total = weighted_mean(SAME, weights, encoding=encoding)[1].weight
    return {
        one: total
        - weighted_mean(SAME, weights, encoding=encoding, drop={"masked": {one}})[1].weight
        for one in (0, 4, 9)
    }


def test_equal_weights_hide_the_sizes_that_differences_show():
    """With weights, rounds with and without a hospital give its size away, which is documented;
    with equal weights they give away that it took part."""
    assert sizes_by_difference(WEIGHTS, 2000) == {one: SIZES[one] for one in (0, 4, 9)}
    equal = dict.fromkeys(range(10), 1)
    assert set(sizes_by_difference(equal, 1).values()) == {1}
    updates = updates_of(range(10))
    _, decoded = weighted_mean(updates, equal, encoding=Encoding(Field(31), 10, max_weight=1))
    mean = sum(vector.astype(float) for vector in updates.values()) / 10
    assert np.abs(decoded.mean - mean).max() <= decoded.max_error_bound < 1e-7


def test_below_the_fewest_survivors_nothing_is_unmasked():
    """Where the shares alone would do: 8 of 10 are left, 9 are asked for."""
    party = Party(range(10))

    def survivors(number, fewest, lost):
        settings = {"threshold": 6, "neighbours": 9, "minimum_survivors": fewest}
        drop = {"masked": lost}
        return weighted_mean(
            SAME, WEIGHTS, party=party, number=number, drop=drop, **settings
        )[0].survivors  # fmt: skip

    assert len(survivors(1, 2, {0, 4})) == len(survivors(2, 8, {0, 4})) == 8
    with pytest.raises(RoundFailed, match="masked: 8 hospitals left; needed 9 survivors"):
        survivors(3, 9, {0, 4})
    assert len(survivors(4, 9, set())) == 10


def test_a_hospital_lost_before_anything_takes_part_in_the_next_round():
    """It has counted the round that was held without it; one that cannot be is not counted."""
    party = Party(range(10))

    def survivors(number, drop):
        return weighted_mean(SAME, WEIGHTS, party=party, number=number, drop=drop)[0].survivors

    assert 3 not in survivors(1, {"advertise": {3}})
    with pytest.raises(InputError):
        survivors(2, {"lunch": {3}})
    assert 3 in survivors(2, {})
