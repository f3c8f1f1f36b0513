"""Whole bounded rounds: exact sums, cheats by name, liars on the committee, parties that vanish."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Identity, Party, Refused, RoundFailed
from repro.secagg.bounded import (
    BoundedHospital,
    BoundedRound,
    BoundedServer,
    Member,
    NormBound,
    run_bounded_round,
)
from repro.secagg.bounded.bound import FIELD, P
from repro.secagg.bounded.messages import Complaint, MemberKey, array_digest, confirmation
from repro.secagg.bounded.setting import PHASES

LENGTH = 40
BOUND = NormBound(1e4, 16, rows=200, error=2.0**-30)


def make(hospitals: int = 7, faults: int = 1, **more) -> tuple[Party, BoundedRound]:
    party = Party(range(hospitals))
    settings = {
        "directory": party.directory,
        "session": party.session,
        "number": 1,
        "bound": BOUND,
        "length": LENGTH,
        "model": bytes(32),
        "training": bytes(32),
        "faults": faults,
    }
    return party, BoundedRound(**{**settings, **more})


def vector(hospital: int) -> np.ndarray:
    normal = np.random.default_rng(hospital).standard_normal(LENGTH)
    return np.trunc(normal / np.linalg.norm(normal) * 1e4).astype(np.int64)


def play(party, round_, **more):
    done = run_bounded_round(party, round_, vector, **more)
    assert (done.total == sum(vector(one) for one in done.accepted)).all()
    return done


def outsider(round_: BoundedRound) -> int:
    return next(one for one in round_.roster if one not in round_.committee)


@pytest.mark.parametrize(("hospitals", "faults"), [(4, 1), (7, 2)])
def test_the_sum_is_exact(hospitals, faults):
    done = play(*make(hospitals, faults))
    assert done.accepted == tuple(range(hospitals))
    assert not done.excluded
    assert not done.lying
    assert not done.left


class TooLong(BoundedHospital):
    """Sends thrice its vector and proves what can be proved of a shorter one."""

    def _checked(self, vector):
        self._shorter = super()._checked(vector)
        return np.mod(3 * vector, P).astype(FIELD.dtype)

    def prove(self, challenge):
        genuine, self._elements = self._elements, self._shorter
        try:
            return super().prove(challenge)
        finally:
            self._elements = genuine


class Huge(TooLong):
    def _checked(self, vector):
        self._shorter = BoundedHospital._checked(self, vector)
        return np.full(LENGTH, P // 2, FIELD.dtype)


class Stubborn(BoundedHospital):
    """Thrice its vector, and a proof of just that, though it is none."""

    def _checked(self, vector):
        return super()._checked(vector) * FIELD.dtype.type(1) * 3 % FIELD.dtype.type(P)

    def _provable(self, circuit, projections):
        return True


class OtherSeeds(BoundedHospital):
    """Seals seeds that it has not committed to, and gives out no others."""

    def offer(self, keys):
        good, self._seeds = self._seeds, [bytes(32) for _ in self._seeds]
        bad, _ = super().offer(keys)
        self._seeds, self._offer = good, None
        offer, masked = super().offer(keys)
        mixed = replace(offer, ephemeral=bad.ephemeral, sealed=bad.sealed)
        signature = self._identity.sign("offer", mixed.digest(self.round))
        self._offer = replace(mixed, signature=signature)
        return self._offer, masked

    def published(self, complaints):
        raise Refused("no answer")


class Repentant(OtherSeeds):
    """The same, but it publishes the right seeds when it is accused."""

    def published(self, complaints):
        return BoundedHospital.published(self, complaints)


class Unsigned(BoundedHospital):
    def offer(self, keys):
        offer, masked = super().offer(keys)
        return replace(offer, signature=bytes(64)), masked


class NotAsSigned(BoundedHospital):
    def offer(self, keys):
        offer, masked = super().offer(keys)
        return offer, masked[::-1].copy()


class Unsealed(BoundedHospital):
    """Seals nothing for one of the members."""

    def offer(self, keys):
        return super().offer(keys[1:])


class Unproved(BoundedHospital):
    def prove(self, challenge):
        proof, masked = super().prove(challenge)
        return replace(proof, signature=bytes(64)), masked


CHEATS = {
    TooLong: "did not prove",
    Huge: "did not prove",
    Stubborn: "did not prove",
    OtherSeeds: "gave a member no seed",
    Unsigned: "not as it was signed",
    NotAsSigned: "not as it was signed",
    Unsealed: "not as it was signed",
    Unproved: "a proof that is not as it was signed",
}


@pytest.mark.parametrize("cheat", CHEATS)
@pytest.mark.parametrize("on_the_committee", [False, True])
def test_a_cheat_is_named_and_the_others_are_summed(cheat, on_the_committee):
    party, round_ = make()
    liar = round_.committee[0] if on_the_committee else outsider(round_)
    done = play(party, round_, hospitals={liar: cheat})
    assert set(done.accepted) == set(round_.roster) - {liar}
    assert set(done.excluded) == {liar}
    assert CHEATS[cheat] in done.excluded[liar]


def test_many_cheats_at_once():
    party, round_ = make(10, 2)
    cheats = dict(zip(round_.roster[:6], list(CHEATS)[:6], strict=True))
    done = play(party, round_, hospitals=cheats)
    assert set(done.excluded) == set(cheats)
    assert len(done.accepted) == 4


def test_who_publishes_the_right_seeds_stays():
    party, round_ = make()
    done = play(party, round_, hospitals={outsider(round_): Repentant})
    assert done.accepted == round_.roster
    assert not done.excluded


class FalseAnswers(Member):
    def answers(self, challenge, proofs):
        found = super().answers(challenge, proofs)
        return {one: {mask: each ^ 1 for mask, each in by.items()} for one, by in found.items()}


class FalseMasks(Member):
    def mask_digests(self, signatures):
        return {number: bytes(32) for number in super().mask_digests(signatures)}


class Complainer(Member):
    """Says of everybody that it was given nothing."""

    def complaints(self, offers):
        super().complaints(offers)
        return [
            Complaint.of(self.round, offer.hospital, mask, self.id, self._identity)
            for offer in offers
            for mask in self.round.held_by(self.id)
        ]


@pytest.mark.parametrize("liar", [FalseAnswers, FalseMasks])
@pytest.mark.parametrize("faults", [1, 2])
def test_members_that_lie_are_named_and_change_nothing(liar, faults):
    party, round_ = make(8, faults)
    lying = round_.committee[-faults:]
    cheat = outsider(round_)
    done = play(party, round_, members=dict.fromkeys(lying, liar), hospitals={cheat: TooLong})
    assert done.lying == set(lying)
    assert set(done.excluded) == {cheat}


def test_a_member_that_complains_of_everybody_harms_nobody():
    party, round_ = make()
    done = play(party, round_, members={round_.committee[1]: Complainer})
    assert done.accepted == round_.roster


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("faults", [1, 2])
def test_as_many_members_as_may_fail_can_vanish_at_any_phase(phase, faults):
    party, round_ = make(9, faults)
    gone = set(round_.committee[:faults])
    done = play(party, round_, drop={phase: gone})
    before_its_proof = PHASES.index(phase) <= PHASES.index("proof")
    assert set(done.accepted) == set(round_.roster) - (gone if before_its_proof else set())


@pytest.mark.parametrize("phase", [one for one in PHASES if one not in ("offer", "proof")])
def test_with_more_gone_the_round_fails_without_a_sum(phase):
    party, round_ = make(9, 1)
    with pytest.raises(RoundFailed):
        play(party, round_, drop={phase: round_.committee[:3]})


def test_no_members_word_counts_alone():
    party, round_ = make()
    with pytest.raises(RoundFailed, match=r"answers: .* 2 members that say the same"):
        play(party, round_, drop={"answers": round_.committee[:2]})


def test_too_few_that_pass_are_not_summed():
    party, round_ = make(minimum=4)
    with pytest.raises(RoundFailed, match="4 that pass"):
        play(party, round_, hospitals=dict.fromkeys(range(4), TooLong))


def test_a_vector_beyond_the_bound_is_its_owners_error():
    _party, round_ = make()
    for bad in (3 * vector(0), vector(0)[1:], vector(0).astype(float)):
        with pytest.raises(InputError, match="vector"):
            BoundedHospital(0, Identity(), round_, bad)


@pytest.mark.parametrize("faults", [1, 2, 3])
def test_any_t_members_lack_a_mask_and_every_mask_has_honest_holders(faults):
    _, round_ = make(10, faults)
    for colluders in combinations(round_.committee, faults):
        known = {mask for one in colluders for mask in round_.held_by(one)}
        (missing,) = set(range(len(round_.masks))) - known
        assert not round_.masks[missing] & set(colluders)
        for mask in round_.masks:
            assert len(mask - set(colluders)) >= faults + 1


class Recorded(Member):
    """Lets the test talk to honest members in the server's place."""

    every: dict[int, Member]

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        Recorded.every[self.id] = self


@pytest.fixture
def ended():
    """A finished round, its members and its server's view."""
    Recorded.every = {}
    party, round_ = make()
    done = play(party, round_, members=dict.fromkeys(round_.committee, Recorded))
    return party, round_, done, Recorded.every


def test_a_member_gives_out_one_sum_whatever_it_is_sent(ended):
    party, round_, done, members = ended
    one = next(iter(members.values()))
    other = done.accepted[1:]
    with pytest.raises(Refused, match="second set of accepted"):
        one.confirm(other)
    statement = confirmation(round_, other)
    signatures = {each: party.hospitals[each].sign("accepted", statement) for each in members}
    with pytest.raises(Refused, match="0 signatures"):
        one.mask_digests(signatures)
    with pytest.raises(Refused, match="second set of proofs"):
        one.answers(bytes(32), [])
    with pytest.raises(Refused, match="second set of offers"):
        one.complaints([])


def begun(party: Party, round_: BoundedRound):
    """Members and hospitals after their offers: what a lying server has to work with."""
    members = {one: Member(one, party.hospitals[one], round_) for one in round_.committee}
    keys = [member.key() for member in members.values()]
    hospitals = {
        one: BoundedHospital(one, party.hospitals[one], round_, vector(one))
        for one in round_.roster
    }
    offers = {one: hospital.offer(keys)[0] for one, hospital in hospitals.items()}
    return members, hospitals, offers


def test_a_lying_server_gets_no_second_answer_about_a_vector():
    party, round_ = make()
    members, hospitals, offers = begun(party, round_)

    def asked(at: int) -> Member:
        member = list(members.values())[at]
        assert member.complaints(list(offers.values())) == []
        return member

    proof, _ = hospitals[0].prove(bytes(32))
    with pytest.raises(Refused, match="out of place"):
        hospitals[0].prove(bytes(31) + b"1")
    with pytest.raises(Refused, match="second vector"):
        hospitals[0].offer([])
    other = bytes(31) + b"1"
    bad = {
        "another matrix than the hospital's": (other, proof),
        "a proof for another matrix": (other, replace(proof, challenge=other)),
        "another proof": (bytes(32), replace(proof, masked=bytes(32))),
    }
    for at, (challenge, changed) in enumerate(bad.values()):
        with pytest.raises(Refused, match="not signed as it is"):
            asked(at).answers(challenge, [changed])
    fourth = asked(3)
    assert set(fourth.answers(bytes(32), [proof])) == {0}
    with pytest.raises(Refused, match="no quorum"):
        fourth.mask_sum(0)
    fourth.confirm(round_.roster)
    statement = confirmation(round_, round_.roster)
    signed = {one: party.hospitals[one].sign("accepted", statement) for one in round_.committee}
    few = dict(list(signed.items())[: round_.quorum - 1])
    with pytest.raises(Refused, match="2 signatures; a quorum is 3"):
        fourth.mask_digests(few)
    with pytest.raises(Refused, match="2 signatures; a quorum is 3"):
        fourth.mask_digests(few | {outsider(round_): few[round_.committee[0]]})


def test_two_proofs_of_one_hospital_are_refused():
    party, round_ = make()
    members, hospitals, offers = begun(party, round_)
    member = members[round_.committee[0]]
    assert member.complaints(list(offers.values())) == []
    proof, _ = hospitals[0].prove(bytes(32))
    with pytest.raises(Refused, match="two proofs"):
        member.answers(bytes(32), [proof, proof])


def test_seeds_are_published_to_nobody_but_an_accuser_they_were_sealed_for():
    party, round_ = make()
    _members, hospitals, _offers = begun(party, round_)
    member = round_.committee[0]
    held, not_held = (
        round_.held_by(member)[0],
        next(mask for mask in range(4) if mask not in round_.held_by(member)),
    )
    identity = party.hospitals[member]
    good = Complaint.of(round_, 0, held, member, identity)
    assert set(hospitals[0].published([good])) == {held}
    bad = (
        Complaint.of(round_, 0, not_held, member, identity),
        Complaint.of(round_, 1, held, member, identity),
        replace(good, signature=bytes(64)),
        replace(good, mask=-1),
        replace(good, member=outsider(round_)),
    )
    for complaint in bad:
        with pytest.raises(Refused, match="complaint of nobody"):
            hospitals[0].published([complaint])


def test_a_member_whose_key_was_kept_back_makes_nobody_publish():
    party, round_ = make()
    members = {one: Member(one, party.hospitals[one], round_) for one in round_.committee}
    keys = [member.key() for member in members.values()]
    hospital = BoundedHospital(0, party.hospitals[0], round_, vector(0))
    offer, _ = hospital.offer(keys[1:])
    left_out = round_.committee[0]
    with pytest.raises(Refused, match="kept back"):
        members[left_out].complaints([offer])
    mask = round_.held_by(left_out)[0]
    complaint = Complaint.of(round_, 0, mask, left_out, party.hospitals[left_out])
    with pytest.raises(Refused, match="complaint of nobody"):
        hospital.published([complaint])


@pytest.mark.parametrize("change", ["few", "forged", "stranger", "twice"])
def test_keys_that_are_not_the_committees_are_refused(change):
    party, round_ = make()
    keys = [Member(one, party.hospitals[one], round_).key() for one in round_.committee]
    stranger = outsider(round_)
    statement = MemberKey.statement(round_, stranger, bytes(32))
    theirs = MemberKey(stranger, bytes(32), party.hospitals[stranger].sign("member key", statement))
    changed = {
        "few": keys[:2],
        "forged": [replace(keys[0], public=bytes(32)), *keys[1:]],
        "stranger": [*keys[1:], theirs],
        "twice": [*keys, keys[0]],
    }[change]
    hospital = BoundedHospital(0, party.hospitals[0], round_, vector(0))
    with pytest.raises(Refused, match="key"):
        hospital.offer(changed)


def test_a_masked_vector_depends_on_every_seed():
    """Without any one of them what is sent is another, uniform vector."""
    party, round_ = make()
    hospital = BoundedHospital(0, party.hospitals[0], round_, vector(0))
    whole = hospital._masked(hospital._elements, "vector")
    for mask in range(len(round_.masks)):
        kept = hospital._seeds[mask]
        hospital._seeds[mask] = bytes(32)
        assert (hospital._masked(hospital._elements, "vector") != whole).all()
        hospital._seeds[mask] = kept


def test_parties_with_other_settings_do_not_understand_each_other():
    party, round_ = make()
    for change in ({"model": b"m" * 32}, {"number": 2}, {"bound": NormBound(2e4, 16, rows=512)}):
        other = replace(round_, **change)
        key = Member(round_.committee[0], party.hospitals[round_.committee[0]], other).key()
        assert not key.genuine(round_)
    assert round_.context == replace(round_).context


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"faults": 3}, "faults"),
        ({"faults": 0}, "faults"),
        ({"minimum": 8}, "minimum"),
        ({"minimum": 1}, "minimum"),
        ({"length": 0}, "length"),
        ({"number": 2**63}, "round"),
        ({"model": b"short"}, "model"),
        ({"bound": NormBound(1e4, 3)}, "bound.hospitals"),
    ],
)
def test_bad_settings_are_named(change, named):
    with pytest.raises(InputError, match=named):
        make(**change)


def test_the_server_takes_nothing_that_is_not_field_elements():
    party, round_ = make()
    members, _hospitals, offers = begun(party, round_)
    server = BoundedServer(round_)
    server.take_keys([member.key() for member in members.values()])
    for bad in (np.full(LENGTH, P, FIELD.dtype), np.zeros(LENGTH), np.zeros(3, FIELD.dtype)):
        offer = replace(offers[0], masked=array_digest(bad))
        signed = replace(offer, signature=party.hospitals[0].sign("offer", offer.digest(round_)))
        with pytest.raises(Refused, match="not as it was signed"):
            server.take_offer(signed, bad)
