"""What a round is bound to: hospitals that do not agree on all of it share no sum."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import (
    Contribution,
    Directory,
    Encoding,
    Field,
    Hospital,
    Identity,
    IntegerEncoding,
    Refused,
    RoundFailed,
    Server,
    messages,
    model_digest,
    settings_digest,
)
from repro.secagg.hospital import pairwise_mask_key
from repro.secagg.keys import AgreementKey
from repro.secagg.messages import Kind
from tests.secagg.parties import Stage, make_round

K = 6
ENCODING = Encoding(Field(31), K, 8.0, 2048)
MODEL = np.linspace(-1, 1, 7, dtype=np.float32)


def other_directory(directory):
    """The same hospitals and server but for one other key."""
    return dataclasses.replace(
        directory, hospitals={**directory.hospitals, K - 1: Identity().public}
    )


# What a lying server may tell one hospital: part of the context -> the victim's round.
LIES = {
    "levels": ("encoding", {"encoding": Encoding(Field(31), K, 8.0, 2048, 3)}),
    "clip range": ("encoding", {"encoding": Encoding(Field(31), K, 1e30, 2048)}),
    "largest weight": ("encoding", {"encoding": Encoding(Field(31), K, 8.0, 4096)}),
    "hospitals": ("encoding", {"encoding": Encoding(Field(31), K + 1, 8.0, 2048)}),
    "field": ("encoding", {"encoding": Encoding(Field(61), K, 8.0, 2048)}),
    "kind of encoding": ("encoding", {"encoding": IntegerEncoding(Field(31), K)}),
    "length": ("encoding", {"length": 8}),
    "model": ("model", {"model": model_digest(np.nextafter(MODEL, np.float32(2)))}),
    "training": ("training", {"training": settings_digest({"epochs": 2})}),
    "application": ("application", {"application": b"other"}),
    "threshold": ("thresholds", {"threshold": 5}),
    "neighbours": ("thresholds", {"neighbours": 4, "threshold": 4}),
    "quorum": ("thresholds", {"quorum": 6}),
    "fewest survivors": ("thresholds", {"minimum_survivors": 3}),
    "session": ("round", {"session": bytes(32)}),
    "number": ("round", {"number": 2}),
    "directory": ("directory", {}),
}


def stage_of():
    stage = Stage(
        K, 4, dimension=7, encoding=ENCODING, model=model_digest(MODEL),
        training=settings_digest({"epochs": 1}),
    )  # fmt: skip
    random = np.random.default_rng(0)
    stage.vectors = {
        one: Contribution(random.normal(0, 0.1, 7).astype(np.float32), 100 + one, one)
        for one in range(K)
    }
    return stage


def deceived(stage, name, victim=0):
    """The victim's own hospital, made for the round it was told of."""
    changes = LIES[name][1] or {"directory": other_directory(stage.round.directory)}
    other = dataclasses.replace(stage.round, **changes)
    identity = Identity(lambda _: stage.party.hospitals[victim].secret)
    if other.number > 1:
        identity.join(other.session, 1)
    return other, Hospital(victim, identity, other)


@pytest.mark.parametrize("name", LIES)
def test_a_hospital_that_was_told_otherwise_is_in_no_sum(name):
    """Its advertisement is refused, with the name of what differs; the others go on alone."""
    stage = stage_of()
    _, stage.hospitals[0] = deceived(stage, name)
    total = stage.play()
    assert stage.server.survivors == set(range(1, K))
    part = LIES[name][0]
    assert any(f"hospital 0 holds another {part}" in line for line in stage.server.refusals)
    mean = ENCODING.decode(total, K - 1).mean
    weights = {one: stage.vectors[one].weight for one in range(1, K)}
    expected = sum(w * stage.vectors[o].vector.astype(float) for o, w in weights.items())
    bound = ENCODING.error_bound(K - 1, sum(weights.values()))
    assert np.abs(mean - expected / sum(weights.values())).max() <= bound


@pytest.mark.parametrize("name", LIES)
def test_a_server_that_passes_it_on_is_refused_by_both_sides(name):
    """The server signs what each side expects. Before anything is shared, the victim finds that
    the others hold something else, and the others that the victim does."""
    stage = stage_of()
    other, victim = deceived(stage, name)
    stage.hospitals[0] = victim
    stage.play("share")
    ads = stage.sent["advertise"]
    part = LIES[name][0]
    theirs = messages.Roster(tuple(bytes(ads[one]) for one in range(1, K)))
    to_victim = messages.wrap(
        Kind.ROSTER, messages.SERVER, other, stage.party.server, theirs.to_bytes()
    )
    with pytest.raises(Refused, match=f"holds another {part}"):
        victim.share_keys(to_victim)
    assert victim.phase == "aborted"
    mixed = messages.Roster(tuple(bytes(ads[one]) for one in range(K) if one != 1))
    to_others = stage.as_server(Kind.ROSTER, mixed.to_bytes())
    with pytest.raises(Refused, match=f"hospital 0 holds another {part}"):
        stage.hospitals[1].share_keys(to_others)


@pytest.mark.parametrize("name", LIES)
def test_masks_of_different_rounds_have_nothing_in_common(name):
    """Were all of these checks blind: the two ends of a pair derive unrelated masks, so the
    victim's input stays masked in any sum."""
    stage = stage_of()
    other, _ = deceived(stage, name)
    one, two = AgreementKey(bytes(range(32))), AgreementKey(bytes(range(1, 33)))
    here = pairwise_mask_key(one, two.public, stage.round.context, 0, 1)
    assert here == pairwise_mask_key(two, one.public, stage.round.context, 0, 1)
    assert here != pairwise_mask_key(two, one.public, other.context, 0, 1)


def test_two_groups_told_differently_never_both_complete():
    """Three and three of six: neither has the quorum of its round, whoever plays the server."""
    stage = stage_of()
    other = dataclasses.replace(stage.round, model=bytes(32))
    for round_, group in ((stage.round, (0, 1, 2)), (other, (3, 4, 5))):
        server = Server(stage.party.server, round_)
        members = {
            one: Hospital(one, Identity(lambda _, o=one: stage.party.hospitals[o].secret), round_)
            for one in group
        }
        with pytest.raises(RoundFailed, match="needed"):
            server.advertise_keys(hospital.advertise_keys() for hospital in members.values())


def test_a_hospital_takes_vectors_and_encodes_them_itself():
    """Field elements encoded elsewhere are no vector of a round with real numbers, and a weight
    beyond the round's own bound is none."""
    stage = stage_of()
    answers = stage.play("masked")
    encoded = ENCODING.encode(stage.vectors[0].vector, 100, 0)
    hospital = stage.hospitals[0]
    for bad in (
        encoded,
        encoded[:7],
        stage.vectors[0].vector[:6],
        Contribution(stage.vectors[0].vector, 2049),
    ):
        with pytest.raises(InputError):
            hospital.masked_input(answers[0], bad)
    assert hospital.masked_input(answers[0], stage.vectors[0])


def test_every_bit_of_a_model_counts():
    digests = {model_digest(MODEL), model_digest(MODEL.astype(np.float64)), model_digest(MODEL[:6])}
    for bit in range(8 * MODEL.nbytes):
        changed = MODEL.copy()
        changed.view(np.uint8)[bit // 8] ^= 1 << bit % 8
        digests.add(model_digest(changed))
    assert len(digests) == 3 + 8 * MODEL.nbytes
    assert model_digest(MODEL[::-1][::-1]) == model_digest(MODEL)
    assert settings_digest({"a": 1, "b": 2}) == settings_digest({"b": 2, "a": 1})
    assert settings_digest({"a": 1, "b": 2}) != settings_digest({"a": 1, "b": 2.5})


@pytest.mark.parametrize(
    "name", [n for n, (part, _) in LIES.items() if part not in ("round", "directory")]
)
def test_nothing_a_server_can_vary_moves_the_graph(name):
    """Neighbours and committee follow from directory, session and number: a server that tries
    models, settings or application bytes gets the same ones every time."""
    _, round_ = make_round(
        70, 4, 4, encoding=Encoding(Field(31), 70, 8.0, 2048), model=model_digest(MODEL)
    )
    changes = dict(LIES[name][1])
    if name in ("threshold", "quorum"):
        changes = {"threshold": 4, "quorum": 40}
    if name == "kind of encoding":
        changes = {"encoding": IntegerEncoding(Field(31), 70)}
    elif "encoding" in changes:
        changes["encoding"] = dataclasses.replace(changes["encoding"], hospitals=70)
    if name == "neighbours":
        changes = {"neighbours": 6, "threshold": 4}
    other = dataclasses.replace(round_, **changes)
    assert other.context != round_.context or name == "hospitals"
    assert other.placement == round_.placement
    assert other.confirmers == round_.confirmers
    if name != "neighbours":
        assert other.graph == round_.graph


def test_another_session_number_or_directory_moves_it():
    party, round_ = make_round(70, 4, 4)
    hospitals = {**party.directory.hospitals, 3: Identity().public}
    for change in (
        {"session": bytes(32)},
        {"number": 2},
        {"directory": Directory(party.server.public, hospitals)},
    ):
        other = dataclasses.replace(round_, **change)
        assert other.graph != round_.graph
        assert other.confirmers != round_.confirmers
