"""Whole rounds: whoever vanishes, whenever, the survivors' sum is exact or the round fails."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg import PHASES, Field, IntegerEncoding, RoundFailed, run_round
from tests.secagg.parties import actors, field_sum, field_vectors, make_round, up_to_masked


def outcome(hospitals, threshold, drop, neighbours=None, seed=0, **more):
    """(round, vectors, completed or failure) of one round with these drop-outs."""
    party, round_ = make_round(hospitals, threshold, neighbours, **more)
    vectors = field_vectors(round_, seed)
    try:
        return round_, vectors, run_round(party, round_, vectors.__getitem__, drop=drop)
    except RoundFailed as failure:
        return round_, vectors, failure


def present_after(roster, drop):
    """Phase -> who still sends in it."""
    gone, present = set(), {}
    for phase in PHASES:
        gone |= set(drop.get(phase, ()))
        present[phase] = set(roster) - gone
    return present


def check_complete_graph(hospitals, threshold, drop):
    """On the complete graph: fails exactly when fewer than t are left in some phase."""
    round_, vectors, result = outcome(hospitals, threshold, drop)
    present = present_after(round_.roster, drop)
    if len(present["unmask"]) < threshold:
        assert isinstance(result, RoundFailed)
        first = next(phase for phase in PHASES if len(present[phase]) < threshold)
        assert result.phase == first
    else:
        assert result.survivors == tuple(sorted(present["masked"]))
        expected = field_sum(round_, vectors, result.survivors)
        np.testing.assert_array_equal(result.total, expected)
        assert not result.refusals


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("hospitals", [2, 3, 4, 5])
def test_every_subset_lost_in_one_phase(hospitals, phase):
    """All 2^K subsets, K ≤ 5, lost before sending in each phase (= after the one before)."""
    for size in range(hospitals + 1):
        for lost in itertools.combinations(range(hospitals), size):
            check_complete_graph(hospitals, hospitals // 2 + 1, {phase: lost})


def test_every_assignment_of_three_hospitals_to_phases():
    """All 6³ ways for three hospitals to vanish in different phases or stay."""
    for fates in itertools.product((None, *PHASES), repeat=3):
        drop = {phase: [i for i in range(3) if fates[i] == phase] for phase in PHASES}
        check_complete_graph(3, 2, drop)


@given(fates=st.lists(st.sampled_from((None, None, None, *PHASES)), min_size=4, max_size=8))
@settings(max_examples=40)
def test_mixed_phases(fates):
    drop = {phase: [i for i, fate in enumerate(fates) if fate == phase] for phase in PHASES}
    check_complete_graph(len(fates), len(fates) // 2 + 1, drop)


def has_holders(round_, owners, alive):
    return all(
        sum(one in alive for one in (*round_.graph[owner], owner)) >= round_.threshold
        for owner in owners
    )


def peeled(round_, present):
    """The present hospitals that keep t holders when those without are taken away, one by one."""
    left = set(present)
    for _ in range(len(present) + 1):
        for one in sorted(left):
            if not has_holders(round_, [one], left):
                left.discard(one)
                break
    return left


@given(
    hospitals=st.integers(6, 100),
    half=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    lost=st.floats(0, 0.25),
)
@settings(max_examples=10)
def test_regular_graphs(hospitals, half, seed, lost):
    """To K = 100: the sum is exact, or some secret had fewer than t holders left, or no quorum."""
    neighbours = min(2 * half, (hospitals - 1) // 2 * 2)
    threshold = neighbours // 2 + 1
    random = np.random.default_rng(seed)
    drop = {phase: set() for phase in PHASES}
    for one in np.flatnonzero(random.random(hospitals) < lost).tolist():
        drop[PHASES[random.integers(len(PHASES))]].add(one)
    round_, vectors, result = outcome(hospitals, threshold, drop, neighbours, seed, dimension=3)
    present = present_after(round_.roster, drop)
    advertised = peeled(round_, present["advertise"])
    sharers = peeled(round_, advertised & present["share"])
    survivors = sharers & present["masked"]
    last = sharers & present["unmask"]
    if isinstance(result, RoundFailed):
        assert (
            len(last & round_.confirmers) < round_.quorum
            or not has_holders(round_, sharers, last)
            or ("one piece" in str(result))
        )
    else:
        assert has_holders(round_, sharers, last)
        assert set(result.survivors) == survivors
        np.testing.assert_array_equal(result.total, field_sum(round_, vectors, survivors))


def test_paper_setting_survives_one_loss_in_every_phase():
    """5 shares, threshold 4, ten hospitals: any single loss is survived."""
    for phase in PHASES:
        for lost in range(0, 10, 3):
            round_, vectors, result = outcome(10, 4, {phase: {lost}}, neighbours=4)
            assert (lost in result.survivors) == (phase in ("consistency", "unmask"))
            expected = field_sum(round_, vectors, result.survivors)
            np.testing.assert_array_equal(result.total, expected)


def test_61_bit_field():
    party, round_ = make_round(5, 3, field=Field(61), dimension=70_000)
    vectors = field_vectors(round_)
    result = run_round(party, round_, vectors.__getitem__, drop={"masked": {2}, "unmask": {4}})
    np.testing.assert_array_equal(result.total, field_sum(round_, vectors, [0, 1, 3, 4]))


def test_a_failed_round_leaves_the_next_one_unharmed():
    party, first = make_round(4, 3)
    vectors = field_vectors(first)
    with pytest.raises(RoundFailed, match="consistency: 2 hospitals left"):
        run_round(party, first, vectors.__getitem__, drop={"consistency": {0, 1}})
    _, second = make_round(4, 3, party=party, number=2)
    result = run_round(party, second, vectors.__getitem__)
    np.testing.assert_array_equal(result.total, field_sum(second, vectors, range(4)))


def test_below_threshold_nothing_is_unmasked():
    """Too few in the consistency check: no hospital was asked for a share, and none gives one."""
    party, round_ = make_round(4, 3)
    server, hospitals = actors(party, round_)
    vectors = field_vectors(round_)
    survivors = server.masked_input(
        hospitals[i].masked_input(m, vectors[i]) for i, m in up_to_masked(server, hospitals).items()
    )
    with pytest.raises(RoundFailed):
        server.consistency_check(hospitals[i].consistency_check(survivors[i]) for i in (0, 1))
    assert server._sum is None
    assert server.survivors == frozenset()
    assert {hospitals[i].phase for i in (0, 1)} == {"unmask"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"threshold": 2}, "threshold"),
        ({"threshold": 6}, "threshold"),
        ({"neighbours": 3}, "neighbours"),
        ({"neighbours": 10}, "neighbours"),
        ({"neighbours": 0, "threshold": 1}, "neighbours"),
        ({"dimension": 0}, "length"),
        ({"model": b"short"}, "model"),
        ({"training": b""}, "training"),
        ({"number": 0}, "round"),
        ({"minimum_survivors": 1}, "minimum_survivors"),
        ({"minimum_survivors": 11}, "minimum_survivors"),
        ({"encoding": IntegerEncoding(Field(31), 9)}, "encoding.hospitals"),
        ({"session": b"short"}, "session"),
        ({"number": -1}, "round"),
        ({"quorum": 5}, "quorum"),
        ({"quorum": 11}, "quorum"),
    ],
)
def test_settings_out_of_range_are_bad_input(changes, field):
    with pytest.raises(InputError) as caught:
        make_round(10, **{"threshold": 4, "neighbours": 4, **changes})
    assert caught.value.field == field


@pytest.mark.parametrize("drop", [{"nonsense": {0}}, {"masked": {9}}])
def test_impossible_drop_outs_are_bad_input(drop):
    party, round_ = make_round(3, 2)
    with pytest.raises(InputError):
        run_round(party, round_, field_vectors(round_).__getitem__, drop=drop)


@pytest.mark.parametrize("hospitals", [6, 12])
def test_memory_is_one_vector_and_one_message(hospitals):
    """Peak of the masked and unmask phases, hospital and server together: below 4 vectors (sum,
    message, the speaking hospital's own), whatever K is."""
    party, round_ = make_round(hospitals, 4, 4, dimension=1_000_000)
    server, clients = actors(party, round_)
    vector = np.ones(round_.dimension, dtype=np.uint32)
    answers = up_to_masked(server, clients)
    tracemalloc.start()
    try:
        answers = server.masked_input(
            clients[i].masked_input(m, vector) for i, m in answers.items()
        )
        answers = server.consistency_check(
            clients[i].consistency_check(m) for i, m in answers.items()
        )
        total = server.unmask(clients[i].unmask(m) for i, m in answers.items())
        assert tracemalloc.get_traced_memory()[1] < 4 * vector.nbytes
    finally:
        tracemalloc.stop()
    assert (total == hospitals).all()


def test_confirmers_are_everybody_or_a_committee():
    """Small or complete: everybody, with the quorum any round that can be unmasked has anyway.
    Large and sparse: 64 that the context picks; every quorum is more than half."""
    _, paper = make_round(10, 4, 4)
    assert (paper.confirmers, paper.quorum) == (frozenset(range(10)), 8)
    _, complete = make_round(100, 60, 99)
    assert (len(complete.confirmers), complete.quorum) == (100, 60)
    party, large = make_round(70, 4, 4)
    assert (len(large.confirmers), large.quorum) == (64, 36)
    _, other = make_round(70, 4, 4, party=party, number=2)
    assert other.confirmers != large.confirmers
    vectors = field_vectors(large)
    # The ring's order is random: the two that are lost must share no hospital whose shares both
    # hold, or that hospital has 3 of the 4 it needs.
    around = {one: large.graph[one] | {one} for one in range(70)}
    late = next(one for one in range(70) if not around[one] & around[17])
    result = run_round(party, large, vectors.__getitem__, drop={"masked": {17}, "unmask": {late}})
    survivors = [one for one in range(70) if one != 17]
    np.testing.assert_array_equal(result.total, field_sum(large, vectors, survivors))
