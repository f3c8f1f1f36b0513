"""What honest members and hospitals refuse, whatever the server sends; what the server refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Refused
from repro.secagg.bounded import (
    BoundedHospital,
    BoundedServer,
    Member,
    NormBound,
)
from repro.secagg.bounded.bound import FIELD, P
from repro.secagg.bounded.messages import (
    array_digest,
    challenge_from,
    confirmation,
)
from repro.secagg.keys import AgreementKey
from tests.secagg.bounded.parties import LENGTH, Begun, complaints_of, make, outsider, play, vector


@pytest.fixture
def begun() -> Begun:
    return Begun(*make(minimum=2))


@pytest.fixture
def asked(begun) -> Begun:
    begun.asked()
    return begun


def test_a_member_gives_out_one_sum_whatever_it_is_sent(asked):
    proofs = [hospital.prove(asked.nonces)[0] for hospital in asked.hospitals.values()]
    accepted, other = asked.round.roster, asked.round.roster[1:]
    for member in asked.members:
        member.answers(asked.nonces, proofs)
        member.confirm(accepted)
        with pytest.raises(Refused, match="second set of accepted"):
            member.confirm(other)
    member = asked.members[0]
    for signed_for, valid in ((other, 0), (accepted, asked.round.quorum - 1)):
        statement = confirmation(asked.round, signed_for)
        few = {
            one: asked.party.hospitals[one].sign("accepted", statement)
            for one in asked.round.committee[: asked.round.quorum - 1]
        }
        few[outsider(asked.round)] = few[asked.round.committee[0]]
        with pytest.raises(Refused, match=f"{valid} signatures; a quorum is 3"):
            member.mask_digests(few)
    with pytest.raises(Refused, match="no quorum"):
        member.mask_sum(0)
    with pytest.raises(Refused, match="second set of proofs"):
        member.answers(asked.nonces, proofs)
    with pytest.raises(Refused, match="second set of offers"):
        member.complaints(asked.keys, asked.offers)


def test_no_sum_is_given_of_who_was_not_judged(asked):
    proofs = [asked.hospitals[one].prove(asked.nonces)[0] for one in asked.round.roster[:4]]
    member = asked.members[0]
    member.answers(asked.nonces, proofs)
    with pytest.raises(Refused, match="opened nothing"):
        member.confirm(asked.round.roster[:5])


@pytest.mark.parametrize("accepted", [(0,), (), (1, 0), (0, 0)])
def test_no_sum_is_given_of_fewer_than_the_minimum(asked, accepted):
    with pytest.raises(Refused, match="fewer than 2"):
        asked.members[0].confirm(accepted)


def test_a_lying_server_gets_no_second_answer_about_a_vector(asked):
    hospital, nonces = asked.hospitals[0], asked.nonces
    proof, _ = hospital.prove(nonces)
    with pytest.raises(Refused, match="out of place"):
        hospital.prove(nonces)
    with pytest.raises(Refused, match="second vector"):
        hospital.offer(asked.keys, vector(0))
    without_last = {one: nonces[one] for one in asked.round.committee[:3]}
    other = challenge_from(asked.round, asked.keys, without_last)
    bad = [
        (without_last, proof, "not signed as it is"),  # another matrix than the hospital's
        (without_last, replace(proof, challenge=other), "not signed as it is"),
        (nonces, replace(proof, masked=bytes(32)), "not signed as it is"),
    ]
    for member, (given, changed, why) in zip(asked.members, bad, strict=False):
        with pytest.raises(Refused, match=why):
            member.answers(given, [changed])
    last = asked.members[3]
    with pytest.raises(Refused, match="no part in"):
        last.answers(without_last, [replace(proof, challenge=other)])


def test_two_proofs_of_one_hospital_are_refused(asked):
    proof, _ = asked.hospitals[0].prove(asked.nonces)
    with pytest.raises(Refused, match="two proofs"):
        asked.members[0].answers(asked.nonces, [proof, proof])


@pytest.mark.parametrize("change", ["few", "other", "stranger", "short"])
def test_a_challenge_is_of_a_quorum_s_own_nonces(asked, change):
    first, *others = asked.nonces
    changed = {
        "few": {one: asked.nonces[one] for one in others[:2]},
        "other": asked.nonces | {first: bytes(32)},
        "stranger": asked.nonces | {outsider(asked.round): bytes(32)},
        "short": asked.nonces | {first: b""},
    }[change]
    with pytest.raises(Refused, match="nonce"):
        asked.hospitals[0].prove(changed)


def test_a_nonce_comes_after_the_offers(begun):
    with pytest.raises(Refused, match="before there are offers"):
        begun.members[0].nonce()


def test_seeds_are_published_to_nobody_but_an_accuser_they_were_sealed_for(begun):
    round_, hospital, member = begun.round, begun.hospitals[0], begun.members[0]
    identity = begun.party.hospitals[member.id]
    good = complaints_of(member, begun.offers[:1])[0]
    assert set(hospital.published([good])) == {good.mask}
    (not_held,) = set(range(len(round_.masks))) - set(round_.held_by(member.id))
    restarted = AgreementKey(bytes(32)).public
    bad = (
        replace(good, mask=not_held).signed(round_, identity),
        replace(good, hospital=1).signed(round_, identity),
        replace(good, key=restarted).signed(round_, identity),
        replace(good, offer=bytes(32)).signed(round_, identity),
        replace(good, signature=bytes(64)),
        replace(good, mask=-1),
        replace(good, member=outsider(round_)),
    )
    for complaint in bad:
        with pytest.raises(Refused, match="complaint of nobody"):
            hospital.published([complaint])


def test_a_member_whose_key_was_kept_back_makes_nobody_publish():
    party, round_ = make()
    hospital = BoundedHospital(0, party.hospitals[0], round_)
    members = [Member(one, party.hospitals[one], round_) for one in round_.committee]
    keys = [member.key() for member in members]
    offer, _ = hospital.offer(keys[1:], vector(0))
    with pytest.raises(Refused, match="kept back"):
        members[0].complaints(keys, [offer])
    complaint = complaints_of(members[0], [offer])[0]
    with pytest.raises(Refused, match="complaint of nobody"):
        hospital.published([complaint])


def test_nobody_plays_a_round_twice(begun):
    """Neither as a hospital nor on the committee: a restarted member's honest complaint, or its
    second signature, would give away what the first kept."""
    member = begun.round.committee[0]
    with pytest.raises(Refused, match="round 1 after round 1"):
        BoundedHospital(member, begun.party.hospitals[member], begun.round)
    for one in (member, outsider(begun.round)):
        with pytest.raises(Refused, match="no part on the committee"):
            begun.hospitals[one].member()


def test_who_misses_a_round_is_left_out_of_the_next_and_nobody_else():
    party, round_ = make()
    gone = outsider(round_)
    for one in round_.roster:
        if one != gone:
            party.hospitals[one].join(round_.session, 1)
    second = replace(round_, number=2)
    assert second.committee == round_.committee
    done = play(party, second)
    assert set(done.accepted) == set(round_.roster) - {gone}
    assert "round 2 after round 0" in done.left[gone]


@pytest.mark.parametrize("change", ["few", "forged", "stranger", "twice"])
def test_keys_that_are_not_the_committees_are_refused(change):
    party, round_ = make()
    keys = [Member(one, party.hospitals[one], round_).key() for one in round_.committee]
    stranger = outsider(round_)
    changed = {
        "few": keys[:2],
        "forged": [replace(keys[0], public=AgreementKey(bytes(32)).public), *keys[1:]],
        "stranger": [*keys[1:], Member(stranger, party.hospitals[stranger], round_).key()],
        "twice": [*keys, keys[0]],
    }[change]
    hospital = BoundedHospital(0, party.hospitals[0], round_)
    with pytest.raises(Refused, match="key"):
        hospital.offer(changed, vector(0))


def test_a_masked_vector_depends_on_every_seed():
    """Without any one of them what is sent is another, uniform vector."""
    party, round_ = make()
    hospital = BoundedHospital(0, party.hospitals[0], round_)
    elements = hospital._checked(vector(0))
    whole = hospital._masked(elements, "vector")
    for mask in range(len(round_.masks)):
        kept = hospital._seeds[mask]
        hospital._seeds[mask] = bytes(32)
        assert (hospital._masked(elements, "vector") != whole).all()
        hospital._seeds[mask] = kept


def test_parties_with_other_settings_do_not_understand_each_other():
    party, round_ = make()
    member = round_.committee[0]
    for change in ({"model": b"m" * 32}, {"number": 2}, {"bound": NormBound(2e4, 16, rows=512)}):
        other = replace(round_, **change)
        assert not Member(member, party.hospitals[member], other).key().genuine(round_)
    assert round_.context == replace(round_).context


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"faults": 3}, "faults"),
        ({"faults": 0}, "faults"),
        ({"minimum": 8}, "minimum"),
        ({"minimum": 1}, "minimum"),
        ({"length": 0}, "length"),
        ({"number": 2**64}, "round"),
        ({"model": b"short"}, "model"),
        ({"bound": NormBound(1e4, 3)}, "bound.hospitals"),
    ],
)
def test_bad_settings_are_named(change, named):
    with pytest.raises(InputError, match=named):
        make(**change)


def test_a_sum_is_of_more_than_half_unless_it_is_said():
    assert make(7)[1].minimum == 4
    assert make(10)[1].minimum == 6


def test_the_server_takes_nothing_that_is_not_field_elements(begun):
    server = BoundedServer(begun.round)
    server.take_keys({key.member: key for key in begun.keys})
    identity = begun.party.hospitals[0]
    for bad in (np.full(LENGTH, P, FIELD.dtype), np.zeros(LENGTH), np.zeros(3, FIELD.dtype)):
        offer = replace(begun.offers[0], masked=array_digest(bad))
        signed = replace(offer, signature=identity.sign("offer", offer.digest(begun.round)))
        with pytest.raises(Refused, match="not as it was signed"):
            server.take_offer(0, signed, bad)


SHAPES = {
    "another's name": {"hospital": 1},
    "no such hospital": {"hospital": -1},
    "a truth value": {"hospital": True},
    "no digest": {"masked": b""},
    "no commitments": {"commitments": ()},
    "short commitments": {"commitments": (b"",) * 4},
    "a short key": {"ephemeral": b"x"},
    "no signature": {"signature": b""},
}


@pytest.mark.parametrize("name", SHAPES)
def test_offers_of_another_shape_are_refused(begun, name):
    server = BoundedServer(begun.round)
    server.take_keys({key.member: key for key in begun.keys})
    bad = replace(begun.offers[0], **SHAPES[name])
    assert name == "another's name" or not bad.genuine(begun.round)
    with pytest.raises(Refused, match="not as it was signed"):
        server.take_offer(0, bad, np.zeros(LENGTH, FIELD.dtype))


def test_boxes_of_another_size_or_for_strangers_are_refused(begun):
    offer = begun.offers[0]
    for sealed in (
        dict.fromkeys(offer.sealed, b"short"),
        {**offer.sealed, outsider(begun.round): bytes(112)},
    ):
        assert not replace(offer, sealed=sealed).genuine(begun.round)


@pytest.mark.parametrize("seed", [b"", b"short", bytes(32), bytes(33)])
def test_what_is_published_and_is_no_seed_counts_as_nothing(begun, seed):
    server = BoundedServer(begun.round)
    server.take_keys({key.member: key for key in begun.keys})
    server.offers[0] = begun.offers[0]
    member = begun.members[0]
    complaints = complaints_of(member, begun.offers[:1])[:1]
    assert server.accused({member.id: complaints}) == {0: complaints}
    assert server.take_answer(0, complaints, {complaints[0].mask: seed}) == {}
    assert "no seed" in server.excluded[0]
