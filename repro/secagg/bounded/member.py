"""A member of the committee: holds seeds of masks, checks proofs on shares, gives out one sum.

Whatever the server sends, an honest member opens of a hospital's shares one proof that the
hospital has signed, and gives out its masks' sum over one set of hospitals, all of which it has
opened a proof of, and for which 2·t + 1 members have signed. So two servers' stories of who was
accepted cannot both be unmasked.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping

import numpy as np

from repro.secagg.bounded.bound import FIELD
from repro.secagg.bounded.circuit import Circuit
from repro.secagg.bounded.messages import (
    SEED_BYTES,
    Complaint,
    MemberKey,
    Offer,
    Proof,
    array_digest,
    challenge_from,
    confirmation,
    fits_commitment,
    nonce_commitment,
)
from repro.secagg.bounded.projections import project
from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.keys import AgreementKey, Identity, derive, unseal, verify
from repro.secagg.masks import add_mask, mask
from repro.secagg.shamir import Entropy

_ROOM = 1 << 28  # bytes of shares projected at a time; each time the matrix is drawn again

Answers = dict[int, np.ndarray]  # mask -> what its share answers


class Member:
    """One member in one round: ``key``, ``complaints``, ``nonce``, ``learn``, ``answers``,
    ``confirm``, ``mask_digests``, ``mask_sum``, in this order. ``BoundedHospital.member`` makes it,
    once a round."""

    def __init__(
        self,
        member: int,
        identity: Identity,
        round_: BoundedRound,
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        self.id, self.round, self._identity = member, round_, identity
        self._key, self._nonce = AgreementKey(entropy(32)), entropy(SEED_BYTES)
        self._keys: list[MemberKey] = []
        self._seeds: dict[int, dict[int, bytes]] = {}  # hospital -> mask -> seed
        self._offers: dict[int, Offer] = {}
        self._answered: set[int] | None = None
        self._accepted: tuple[int, ...] = ()
        self._agreed = False

    def key(self) -> MemberKey:
        hidden = nonce_commitment(self.round, self.id, self._nonce)
        key = MemberKey(self.id, self._key.public, hidden)
        signature = self._identity.sign("member key", key.statement(self.round))
        return MemberKey(self.id, self._key.public, hidden, signature)

    def complaints(self, keys: Collection[MemberKey], offers: Collection[Offer]) -> list[Complaint]:
        """One for each seed that is not what its hospital has committed to.

        keys: the members', as the hospitals were given them.
        """
        if self._offers:
            raise Refused("a second set of offers in one round")
        if not all(key.genuine(self.round) for key in keys):
            raise Refused("keys that are not the committee's")
        self._keys = list(keys)
        found = []
        for offer in offers:
            if not offer.genuine(self.round) or offer.hospital in self._offers:
                raise Refused("an offer that its hospital has not signed, or two of one")
            if self.id not in offer.sealed:
                raise Refused("an offer without seeds for this member: its key was kept back")
            self._offers[offer.hospital] = offer
            self._seeds[offer.hospital] = seeds = self._opened(offer)
            about = (self.id, self._key.public, offer.digest(self.round))
            found += [
                Complaint(offer.hospital, number, *about).signed(self.round, self._identity)
                for number in self.round.held_by(self.id)
                if number not in seeds
            ]
        return found

    def nonce(self) -> bytes:
        """Its part of the challenge, once the vectors are fixed."""
        if not self._offers:
            raise Refused("a nonce is asked for before there are offers")
        return self._nonce

    def _opened(self, offer: Offer) -> dict[int, bytes]:
        """Mask -> seed, of those that come out as they were committed to."""
        who = ("seeds", offer.hospital, self.id)
        try:
            key = self._key.agree(offer.ephemeral, self.round.context, *who)
            opened = unseal(key, offer.sealed[self.id], self.round.context)
        except Refused:
            return {}
        seeds = {
            number: opened[SEED_BYTES * at : SEED_BYTES * (at + 1)]
            for at, number in enumerate(self.round.held_by(self.id))
        }
        return {
            number: seed
            for number, seed in seeds.items()
            if fits_commitment(self.round, offer, number, seed)
        }

    def learn(self, published: Mapping[int, Mapping[int, bytes]]) -> tuple[()]:
        """Seeds that accused hospitals have published: hospital -> mask -> seed. No answer."""
        for hospital, seeds in published.items():
            for number in set(seeds) & set(self.round.held_by(self.id)):
                if fits_commitment(self.round, self._offers[hospital], number, seeds[number]):
                    self._seeds[hospital].setdefault(number, seeds[number])
        return ()

    def answers(self, nonces: Mapping[int, bytes], proofs: Collection[Proof]) -> dict[int, Answers]:
        """Hospital -> what this member's shares of its vector and proof answer. Once a round."""
        if self._answered is not None:
            raise Refused("a second set of proofs in one round")
        self._answered = set()
        challenge = challenge_from(self.round, self._keys, nonces)
        if self.id not in nonces:
            raise Refused("a challenge that this member has no part in")
        for proof in proofs:
            offer = self._offers.get(proof.hospital) if proof.genuine(self.round) else None
            if (
                offer is None
                or not self._complete(proof.hospital)
                or proof.challenge != challenge
                or proof.offer != offer.digest(self.round)
            ):
                raise Refused("a proof that its hospital has not signed as it is")
        judged = {proof.hospital for proof in proofs}
        if len(judged) != len(proofs):
            raise Refused("two proofs of one hospital")
        held = self.round.held_by(self.id)
        each = len(held) * self.round.length * FIELD.dtype.itemsize
        together = max(1, _ROOM // each)
        ordered = sorted(proofs, key=lambda proof: proof.hospital)
        found: dict[int, Answers] = {}
        for start in range(0, len(ordered), together):
            found |= self._of_shares(challenge, ordered[start : start + together], held)
        self._answered = judged
        return found

    def _of_shares(
        self, challenge: bytes, proofs: list[Proof], held: list[int]
    ) -> dict[int, Answers]:
        circuit = Circuit(self.round.bound)
        keys = [
            mask_key(self.round, self._seeds[one.hospital][number], "vector", one.hospital, number)
            for one in proofs
            for number in held
        ]
        vectors = np.stack([mask(FIELD, key, self.round.length) for key in keys])
        projected = iter(project(challenge, self.round.bound.rows, vectors))
        found: dict[int, Answers] = {}
        for proof in proofs:
            query, one = proof.digest(self.round), proof.hospital
            found[one] = {}
            for number in held:
                key = mask_key(self.round, self._seeds[one][number], "proof", one, number)
                shared = mask(FIELD, key, circuit.size)
                answer = circuit.answers(shared, next(projected), query, constants=False)
                found[one][number] = answer.astype(FIELD.dtype)
        return found

    def confirm(self, accepted: tuple[int, ...]) -> bytes:
        """This member's signature under whom the sum is over: one set a round."""
        if self._accepted:
            raise Refused("a second set of accepted hospitals in one round")
        if list(accepted) != sorted(set(accepted)) or len(accepted) < self.round.minimum:
            raise Refused(f"fewer than {self.round.minimum} hospitals in a sum, or one twice")
        if not set(accepted) <= (self._answered or set()):
            raise Refused("a hospital of whose proof this member has opened nothing")
        self._accepted = accepted
        return self._identity.sign("accepted", confirmation(self.round, accepted))

    def mask_digests(self, signatures: Mapping[int, bytes]) -> dict[int, bytes]:
        """Mask -> SHA-256 of its sum over the accepted, once a quorum has signed for them."""
        statement = confirmation(self.round, self._accepted)
        valid = [
            one
            for one, signature in signatures.items()
            if one in self.round.committee
            and verify(self.round.directory.hospitals[one], "accepted", statement, signature)
        ]
        if not self._accepted or len(valid) < self.round.quorum:
            raise Refused(f"{len(valid)} signatures; a quorum is {self.round.quorum}")
        self._agreed = True
        return {number: array_digest(self._sum(number)) for number in self.round.held_by(self.id)}

    def mask_sum(self, number: int) -> np.ndarray:
        """(length,) field elements: one mask's sum over the accepted."""
        if not self._agreed or number not in self.round.held_by(self.id):
            raise Refused("a sum of masks that no quorum has signed for")
        return self._sum(number)

    def _sum(self, number: int) -> np.ndarray:
        total = FIELD.zeros(self.round.length)
        for one in self._accepted:
            seed = self._seeds[one][number]
            add_mask(FIELD, total, mask_key(self.round, seed, "vector", one, number))
        return total

    def _complete(self, hospital: int) -> bool:
        return len(self._seeds.get(hospital, ())) == len(self.round.held_by(self.id))


def mask_key(round_: BoundedRound, seed: bytes, what: str, hospital: int, mask: int) -> bytes:
    """The key of one of a hospital's masks: of its vector, or of its proof."""
    return derive(seed, round_.context, "bounded", what, hospital, mask)
