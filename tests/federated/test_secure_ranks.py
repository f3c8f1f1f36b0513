"""Secure aggregation over ranks: the protocol's sum, and nothing unmasked between processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.errors import InputError
from repro.federated.parallel.ranks import Ranks
from repro.federated.secure import SecureAggregation, public_bound
from repro.randomness import RootSeed
from repro.runs.settings import SecAggParameters
from repro.secagg import Encoding, Field, MaskedSum
from tests.federated.threads import Meeting, on_ranks
from tests.secagg.parties import actors, make_round, up_to_masked, weighted_mean

SIZE = 40
SEED = RootSeed.from_user(1)


def updates(weights, seed=0):
    stream = np.random.default_rng(seed)
    return {h: torch.from_numpy(stream.normal(size=SIZE).astype(np.float32)) for h in weights}


def one_round(ranks, parameters, weights, given_updates, number=1):
    """One round of the aggregator, each rank adding its own hospitals' updates."""
    aggregation = SecureAggregation(parameters, weights, SEED, ranks)
    aggregation.start(number, weights, torch.zeros(SIZE))
    for hospital in ranks.share(weights):
        aggregation.add(hospital, given_updates[hospital])
    return aggregation.finish()


@settings(max_examples=20)
@given(
    weights=st.lists(st.integers(1, 300), min_size=5, max_size=12),
    size=st.integers(1, 4),
    lost=st.sampled_from([0.0, 0.1]),
    bits=st.sampled_from([31, 61]),
)
def test_any_number_of_ranks_equals_the_protocol_in_one_process(weights, size, lost, bits):
    """The mean is bit for bit ``run_round``'s, and all ranks have it, facts included."""
    by_id = dict(enumerate(weights))
    parameters = replace(SecAggParameters(), drop_rate=lost, field_bits=bits)
    given_updates = updates(by_id)
    results = on_ranks(size, lambda ranks: one_round(ranks, parameters, by_id, given_updates))
    first = results[0]
    facts = first.facts["secagg"]
    completed, decoded = weighted_mean(
        {h: update.numpy() for h, update in given_updates.items()},
        by_id,
        seed=SEED,
        drop={"masked": facts["dropped"]},
        encoding=Encoding(Field(bits), len(weights), max_weight=public_bound(by_id)),
    )
    assert len(facts["dropped"]) == int(lost * len(weights))
    for result in results:
        assert np.array_equal(result.mean.numpy(), decoded.mean.astype(np.float32))
        assert result.facts == first.facts
    assert facts["max_error_bound"] == decoded.max_error_bound
    for name in ("up_bytes", "down_bytes"):
        assert facts[name] == getattr(completed.traffic, name)
    assert facts["survivors"] == len(completed.survivors)
    assert first.survivors == completed.survivors


@given(
    cost=st.dictionaries(st.integers(0, 50), st.integers(1, 9), min_size=1), size=st.integers(1, 4)
)
def test_every_hospital_is_on_one_rank_and_no_rank_has_much_more_than_its_part(cost, size):
    """At most the mean load and, of the largest hospital, all but the mean's part of it: what any
    list schedule keeps (Graham 1969)."""
    shared = []
    for rank in range(size):
        ranks = Ranks()
        ranks.rank, ranks.size = rank, size
        mine = ranks.share(cost)
        assert mine == sorted(mine)
        most = (sum(cost.values()) + (size - 1) * max(cost.values())) / size
        assert sum(cost[one] for one in mine) <= most
        shared += mine
    assert sorted(shared) == sorted(cost)


def test_nothing_unmasked_crosses_between_ranks():
    """All that is as long as an update is masked: each rank's sum looks uniform, not like its
    own hospitals' encodings, and everything else that crosses is shorter than a vector.

    A uniform sum agrees with the encodings' sum in a coordinate with probability 1/p, so that
    one of 2·42 coordinates agrees by chance has probability below 1e-7.
    """
    weights = dict.fromkeys(range(6), 10)
    given_updates = updates(weights)
    meeting = Meeting(2)
    held = {}

    def work(ranks):
        held[ranks.rank] = ranks.share(weights)
        aggregation = SecureAggregation(SecAggParameters(), weights, SEED, ranks)
        aggregation.start(1, weights, torch.zeros(SIZE))
        for hospital in held[ranks.rank]:
            aggregation.add(hospital, given_updates[hospital])
        aggregation.finish()
        return aggregation._encoding

    encoding, _ = on_ranks(2, work, meeting)
    sums = {rank: value for method, rank, value in meeting.crossed if method == "sum_"}
    assert set(sums) == {0, 1}
    for rank, total in sums.items():
        plain = sum(
            encoding.encode(
                given_updates[h].numpy(), 10, SEED.derive("secagg rounding", h, 1)
            ).astype(np.int64)
            for h in held[rank]
        )
        assert not (total.numpy() == plain % encoding.field.modulus).any()
    others = [value for method, _, value in meeting.crossed if method in ("gather", "collect")]
    assert others
    arrays = [
        leaf
        for value in others
        for leaf in leaves(value)
        if not isinstance(leaf, (int, bytes, bytearray, str))
    ]
    assert arrays == []  # no tensor travels but in sum_; messages are the protocol's, sealed


def leaves(value):
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, (list, tuple, set)):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]


def test_too_few_left_fails_on_every_rank_and_the_next_round_works():
    weights = dict.fromkeys(range(6), 10)
    given_updates = updates(weights)

    def work(ranks):
        aggregation = SecureAggregation(SecAggParameters(), weights, SEED, ranks)
        aggregation.start(1, weights, torch.zeros(SIZE))
        mine = ranks.share(weights)
        for hospital in mine[:1]:
            aggregation.add(hospital, given_updates[hospital])
        failed = aggregation.finish()
        assert failed.survivors == ()
        assert not failed.mean.any()
        assert failed.facts["secagg"]["failed"].startswith("masked: 2 hospitals left")
        aggregation.start(2, weights, torch.zeros(SIZE))
        for hospital in mine:
            aggregation.add(hospital, given_updates[hospital])
        return aggregation.finish().facts["secagg"]["survivors"]

    assert on_ranks(2, work) == [6, 6]


@pytest.mark.parametrize("bits", [31, 61])
def test_sums_over_ranks_are_exact_in_the_field(bits):
    """Python's integers agree on seven ranks, largest elements and random ones: 7p > 2^63."""
    field = Field(bits)
    stream = np.random.default_rng(bits)
    given_vectors = stream.integers(0, field.modulus, (7, 50)).astype(field.dtype)
    given_vectors[:, 0] = field.modulus - 1
    given_vectors[:, 1] = 0
    sums = on_ranks(7, lambda ranks: ranks.add_up(given_vectors[ranks.rank], field))
    expected = [sum(map(int, column)) % field.modulus for column in given_vectors.T]
    assert all(one.dtype == field.dtype and one.tolist() == expected for one in sums)


def test_update_that_is_not_finite_is_refused():
    weights = dict.fromkeys(range(5), 10)
    aggregation = SecureAggregation(SecAggParameters(), weights, SEED, Ranks())
    aggregation.start(1, weights, torch.zeros(SIZE))
    with pytest.raises(InputError, match="finite"):
        aggregation.add(0, torch.full((SIZE,), float("nan")))


@pytest.fixture
def masked_phase():
    """A server that awaits masked inputs, and hospitals that can send them."""
    party, round_ = make_round(6, 4, 4, dimension=10)
    server, hospitals = actors(party, round_)
    vector = np.arange(10, dtype="<u4")
    return server, hospitals, round_, {
        h: hospitals[h].masked_input(m, vector)
        for h, m in up_to_masked(server, hospitals).items()
    }  # fmt: skip


def test_masked_sum_takes_what_the_server_would(masked_phase):
    """Two places take the messages in, with a double, a foreign and a broken one among them."""
    server, hospitals, round_, messages = masked_phase
    parts = [MaskedSum(round_, range(6), [0, 1, 2]), MaskedSum(round_, range(6), [3, 4, 5])]
    for hospital, message in messages.items():
        parts[hospital // 3].add(message)
    before = parts[0].total.copy()
    parts[0].add(messages[0])
    parts[0].add(messages[4])
    parts[0].add(messages[1][:-1])
    assert np.array_equal(parts[0].total, before)
    assert len(parts[0].refusals) == 3
    total = parts[0].total.copy()
    round_.field.add_into(total, parts[1].total)
    survivors = server.masked_sum(parts[0].signatures | parts[1].signatures, total)
    signed = [hospitals[h].consistency_check(m) for h, m in survivors.items()]
    confirmed = server.consistency_check(signed)
    result = server.unmask([hospitals[h].unmask(m) for h, m in confirmed.items()])
    assert np.array_equal(result, 6 * np.arange(10, dtype="<u4"))


def test_server_refuses_a_sum_that_is_not_of_its_round(masked_phase):
    server, _, round_, _ = masked_phase
    with pytest.raises(InputError, match="senders"):
        server.masked_sum({0: b"", 9: b""}, round_.field.zeros(10))
    with pytest.raises(InputError, match="total"):
        server.masked_sum({0: b""}, round_.field.zeros(9))
    assert server.phase == "masked"
