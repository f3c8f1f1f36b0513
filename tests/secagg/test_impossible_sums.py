"""Sums that no honest hospitals can have are refused by name; every sum they can have is not."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.cli import main
from repro.secagg import (
    Contribution,
    Encoding,
    Field,
    Hospital,
    ImpossibleSum,
    IntegerEncoding,
    MemoryCounter,
    Party,
    RoundFailed,
    messages,
)
from repro.secagg.keys import AgreementKey
from repro.secagg.masks import mask
from repro.secagg.messages import Kind
from tests.secagg.parties import Stage, counted_entropy, weighted_mean

P = 50


def added(encoding, encoded):
    """The field sum in Python integers."""
    modulus = encoding.field.modulus
    columns = [sum(map(int, column)) % modulus for column in zip(*encoded, strict=True)]
    return np.array(columns, dtype=encoding.field.dtype)


@given(
    bits=st.sampled_from([31, 61]),
    hospitals=st.integers(1, 12),
    levels=st.sampled_from([None, 3, 4, 256]),
    max_weight=st.sampled_from([1, 7, 2048]),
    scale=st.sampled_from([0.0, 0.01, 8.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_no_honest_sum_is_refused(bits, hospitals, levels, max_weight, scale, seed):
    """Any weights, any values (all at the border and all clipped among them), any rounding."""
    encoding = Encoding(Field(bits), hospitals, 8.0, max_weight, levels)
    random = np.random.default_rng(seed)
    weights = random.integers(0, max_weight + 1, hospitals)
    weights[0] = max_weight
    vectors = [
        (scale * random.choice([-1.0, 1.0, 0.3], P)).astype(np.float32) for _ in range(hospitals)
    ]
    encoded = [
        encoding.encode(vector, int(weight), int(random.integers(0, 2**63)))
        for vector, weight in zip(vectors, weights, strict=True)
    ]
    decoded = encoding.decode(added(encoding, encoded), hospitals)
    assert decoded.weight == weights.sum()
    clipped = [np.clip(v.astype(float), -8, 8) for v in vectors]
    mean = sum(w * v for w, v in zip(weights, clipped, strict=True)) / weights.sum()
    assert np.abs(decoded.mean - mean).max() <= decoded.max_error_bound


@pytest.mark.parametrize("bits", [31, 61])
@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        (-2, 10 * 2048 + 1, "a total weight"),
        (-1, 10 * P + 1, "a count of clipped values"),
        (0, "above", "a coordinate"),
        (3, "below", "a coordinate"),
    ],
)
def test_each_public_bound_is_checked(bits, at, value, what):
    """One above (or below) the bound is refused, the bound itself is not."""
    encoding = Encoding(Field(bits), 10, 8.0, 2048)
    encoded = [encoding.encode(np.zeros(P, np.float32), 1000, one) for one in range(10)]
    total = added(encoding, encoded)
    reach = 10_000 * encoding.half_range // 2048 + 20
    middle = 10 * encoding.half_range
    edge = {"above": middle + reach + 1, "below": middle - reach - 1}.get(value, value)
    total[at] = edge
    with pytest.raises(ImpossibleSum, match=what) as failure:
        encoding.decode(total, 10)
    assert failure.value.phase == "decode"
    total[at] = edge + 1 if value == "below" else edge - 1
    encoding.decode(total, 10)


def spoiled_by_another_key(stage, one):
    """Hospital ``one`` advertises a mask key that it does not use."""

    def forge(phase, sender, reply):
        if (phase, sender) != ("advertise", one):
            return reply
        keys = messages.Advertise.from_bytes(bytes(reply[56:-64]))
        other = AgreementKey(bytes(range(32))).public
        payload = messages.Advertise.of(stage.round, other, keys.seal_key).to_bytes()
        return stage.as_hospital(one, Kind.ADVERTISE, payload)

    return forge


def spoiled_by_its_vector(stage, one):
    """Hospital ``one`` adds noise of its own to the whole field."""

    def forge(phase, sender, reply):
        if (phase, sender) != ("masked", one):
            return reply
        payload = bytearray(reply[56:-64])
        masked = messages.Masked.room(memoryview(payload), stage.round.field).vector
        noise = mask(stage.round.field, bytes(range(32)), len(masked))
        stage.round.field.add_into(masked, noise)
        return stage.as_hospital(one, Kind.MASKED, bytes(payload))

    return forge


@pytest.mark.parametrize("spoil", [spoiled_by_another_key, spoiled_by_its_vector])
@pytest.mark.parametrize("bits", [31, 61])
def test_a_spoiled_sum_is_refused_and_has_no_error_bound(spoil, bits):
    """A uniform total weight is possible with probability 10·2048/2^31 < 1e-5, a uniform count of
    clipped values with 10·50/2^31, 50 uniform coordinates in half of the field with 2^-50:
    a false acceptance below 1e-20."""
    encoding = Encoding(Field(bits), 10, 8.0, 2048)
    stage = Stage(10, 4, neighbours=4, dimension=P, encoding=encoding)
    zeros = np.zeros(P, np.float32)
    stage.vectors = dict.fromkeys(range(10), Contribution(zeros, 1000, 5))
    total = stage.play(forge=spoil(stage, 4))
    assert not stage.server.refusals
    with pytest.raises(ImpossibleSum, match="thrown away"):
        encoding.decode(total, len(stage.server.survivors))


@pytest.fixture
def spoiler(monkeypatch):
    """Hospital 4 masks with another key than it advertised, whoever plays the round."""
    honest = Hospital._add_masks

    def add_masks(self, vector, neighbours):
        if self.id == 4:
            self._mask_key = AgreementKey(bytes(range(32)))
        honest(self, vector, neighbours)

    monkeypatch.setattr(Hospital, "_add_masks", add_masks)


def test_the_next_round_is_unharmed(spoiler, monkeypatch):
    party, updates = Party(range(6)), {one: np.zeros(P, np.float32) for one in range(6)}
    weights = dict.fromkeys(updates, 9)
    with pytest.raises(ImpossibleSum):
        weighted_mean(updates, weights, party=party)
    monkeypatch.undo()
    _, decoded = weighted_mean(updates, weights, party=party, number=2)
    assert decoded.weight == 54


def test_the_command_line_prints_no_bound_for_it(spoiler, capsys):
    words = "secagg --hospitals 6 --dimension 50 --threshold 3 --neighbours 4 --seed 1 --json"
    assert main(words.split()) == 3
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is False
    assert data["phase"] == "decode"
    assert data["max_error"] is None
    assert "error_bound" not in data


def test_failures_keep_their_parts_between_processes():
    for failure in (
        RoundFailed("masked", {3, 1}, "4 hospitals", {7}),
        ImpossibleSum("decode", (), "a coordinate"),
    ):
        copy = pickle.loads(pickle.dumps(failure))
        assert type(copy) is type(failure)
        assert str(copy) == str(failure)
        parts = (copy.phase, copy.remaining, copy.needed, copy.culprits)
        assert parts == (failure.phase, failure.remaining, failure.needed, failure.culprits)


def test_integers_beyond_their_public_bound_are_refused():
    encoding = IntegerEncoding(Field(31), 10, magnitude=1000)
    encoded = [encoding.encode(np.full(P, 1000), 1, 0) for _ in range(10)]
    total = added(encoding, encoded)
    assert (encoding.decode(total, 10).mean == 1000).all()
    with pytest.raises(ImpossibleSum):
        encoding.decode(total, 9)


def test_the_spoiler_of_a_sum_cannot_be_told(monkeypatch):
    """Hospital 1 spoils the sum by a vector e; or hospital 4 does, and the mask between the two is
    another by e. Every message of either world, to and from the server, is the same to the last
    byte: whatever names one of them in the first world names an innocent one in the second."""
    field, party, sent = Field(31), Party(range(6)), {}
    noise = mask(field, bytes(range(32)), P)
    honest = Hospital._add_masks

    def add_masks(self, vector, neighbours):
        honest(self, vector, neighbours)
        if self.id == 1:
            field.add_into(vector, noise)
        if self.id == 4:
            field.add_into(vector, field.modulus - noise)

    for spoiler in (1, 4):
        for identity in party.hospitals.values():
            identity._counter = MemoryCounter()
        monkeypatch.setattr(Hospital, "_add_masks", honest if spoiler == 1 else add_masks)
        entropy = counted_entropy("worlds")
        stage = Stage(6, 4, party=party, entropy=entropy, dimension=P)
        assert 4 in stage.round.graph[1]
        field.add_into(stage.vectors[spoiler], noise)
        total = stage.play()
        answers = {one: bytes(message) for one, message in stage.answers.items()}
        replies = {
            phase: {one: bytes(message) for one, message in messages_.items()}
            for phase, messages_ in stage.sent.items()
        }
        sent[spoiler] = (replies, answers, total.tobytes())
    assert sent[1] == sent[4]
