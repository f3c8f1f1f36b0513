"""Whole bounded rounds: exact sums, cheats by name, liars on the committee, parties that vanish."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from repro.errors import InputError
from repro.secagg import Identity, Refused, RoundFailed
from repro.secagg.bounded import (
    BoundedHospital,
    Member,
)
from repro.secagg.bounded.bound import FIELD, P
from repro.secagg.bounded.messages import (
    MemberKey,
)
from repro.secagg.bounded.setting import PHASES
from repro.secagg.keys import AgreementKey
from tests.secagg.bounded.parties import LENGTH, complaints_of, make, outsider, play, vector


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

    def prove(self, nonces):
        genuine, self._elements = self._elements, self._shorter
        try:
            return super().prove(nonces)
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

    def offer(self, keys, vector):
        good, self._seeds = self._seeds, [bytes(32) for _ in self._seeds]
        bad, _ = super().offer(keys, vector)
        self._seeds, self._offer = good, None
        offer, masked = super().offer(keys, vector)
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
    def offer(self, keys, vector):
        offer, masked = super().offer(keys, vector)
        return replace(offer, signature=bytes(64)), masked


class NotAsSigned(BoundedHospital):
    def offer(self, keys, vector):
        offer, masked = super().offer(keys, vector)
        return offer, masked[::-1].copy()


class Unsealed(BoundedHospital):
    """Seals nothing for one of the members."""

    def offer(self, keys, vector):
        return super().offer(keys[1:], vector)


class Unproved(BoundedHospital):
    def prove(self, nonces):
        proof, masked = super().prove(nonces)
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
    party, round_ = make(10, 2, minimum=4)
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
    def answers(self, nonces, proofs):
        found = super().answers(nonces, proofs)
        return {one: {mask: each ^ 1 for mask, each in by.items()} for one, by in found.items()}


class FalseMasks(Member):
    def mask_digests(self, signatures):
        return {number: bytes(32) for number in super().mask_digests(signatures)}


class Complainer(Member):
    """Says of everybody that it was given nothing."""

    def complaints(self, keys, offers):
        super().complaints(keys, offers)
        return complaints_of(self, offers)


class OtherKey(Member):
    """Complains under another key than the one that seeds were sealed for."""

    def complaints(self, keys, offers):
        super().complaints(keys, offers)
        other = AgreementKey(bytes(32)).public
        return [
            replace(each, key=other).signed(self.round, self._identity)
            for each in complaints_of(self, offers)
        ]


class Keyless(Member):
    """Gives no key that seeds could be sealed for, and complains that none were."""

    def key(self):
        return replace(super().key(), public=bytes(32))

    def complaints(self, keys, offers):
        return complaints_of(self, offers)


class Forged(Keyless):
    def key(self):
        return replace(super().key(), public=AgreementKey(bytes(32)).public)


class SmallOrder(Keyless):
    def key(self):
        key = MemberKey(self.id, bytes(32), bytes(32))
        return replace(key, signature=self._identity.sign("member key", key.statement(self.round)))


class OtherNonce(Member):
    def nonce(self):
        return bytes(32)


class NoAnswers(Member):
    def answers(self, nonces, proofs):
        found = super().answers(nonces, proofs)
        return {one: dict.fromkeys(by, np.zeros(0, FIELD.dtype)) for one, by in found.items()}


class NoDigests(Member):
    def mask_digests(self, signatures):
        return {}


class OtherSums(Member):
    """The right digests, but other sums."""

    def mask_sum(self, number):
        return super().mask_sum(number)[::-1].copy()


class NoSums(Member):
    def mask_sum(self, number):
        raise Refused("no")


# Who says what t + 1 others contradict is named; who says nothing of use is not.
LIARS = {
    FalseAnswers: True,
    FalseMasks: True,
    OtherSums: True,
    NoSums: False,
    Complainer: False,
    OtherKey: False,
    Keyless: False,
    Forged: False,
    SmallOrder: False,
    OtherNonce: False,
    NoAnswers: False,
    NoDigests: False,
}


@pytest.mark.parametrize("liar", LIARS)
@pytest.mark.parametrize("faults", [1, 2])
def test_members_that_lie_change_nothing(liar, faults):
    party, round_ = make(8, faults)
    lying = round_.committee[:faults]
    cheat = outsider(round_)
    done = play(party, round_, members=dict.fromkeys(lying, liar), hospitals={cheat: TooLong})
    assert set(done.excluded) == {cheat}
    assert set(done.accepted) == set(round_.roster) - {cheat}
    assert done.lying <= set(lying)
    assert bool(done.lying) == LIARS[liar]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("faults", [1, 2])
def test_as_many_members_as_may_fail_can_vanish_at_any_phase(phase, faults):
    party, round_ = make(9, faults)
    gone = set(round_.committee[:faults])
    done = play(party, round_, drop={phase: gone})
    before_its_proof = PHASES.index(phase) <= PHASES.index("proof")
    assert set(done.accepted) == set(round_.roster) - (gone if before_its_proof else set())


@pytest.mark.parametrize(
    "phase", [one for one in PHASES if one not in ("masked", "seeds", "proof")]
)
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
    with pytest.raises(RoundFailed, match="4 that pass") as failed:
        play(party, round_, hospitals=dict.fromkeys(range(4), TooLong))
    assert failed.value.culprits == (0, 1, 2, 3)


def test_a_vector_beyond_the_bound_is_its_owners_error():
    _party, round_ = make()
    for bad in (3 * vector(0), vector(0)[1:], vector(0).astype(float)):
        with pytest.raises(InputError, match="vector"):
            BoundedHospital(0, Identity(), round_).offer([], bad)


@pytest.mark.parametrize("faults", [1, 2, 3])
def test_any_t_members_lack_a_mask_and_every_mask_has_honest_holders(faults):
    _, round_ = make(10, faults)
    for colluders in combinations(round_.committee, faults):
        known = {mask for one in colluders for mask in round_.held_by(one)}
        (missing,) = set(range(len(round_.masks))) - known
        assert not round_.masks[missing] & set(colluders)
        for mask in round_.masks:
            assert len(mask - set(colluders)) >= faults + 1
