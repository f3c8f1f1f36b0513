"""A member of the committee: holds seeds of masks, checks proofs on shares, gives out one sum.

Whatever the server sends, an honest member opens of a hospital's shares one proof that the
hospital has signed, and gives out its masks' sum over one set of hospitals, which 2·t + 1 members
have signed. So two servers' stories of who was accepted cannot both be unmasked.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping

import numpy as np

from repro.secagg.bounded.bound import FIELD
from repro.secagg.bounded.circuit import Circuit
from repro.secagg.bounded.hospital import mask_key, seeds_opened
from repro.secagg.bounded.messages import (
    Complaint,
    MemberKey,
    Offer,
    Proof,
    array_digest,
    confirmation,
    seed_commitment,
)
from repro.secagg.bounded.projections import project
from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.keys import AgreementKey, Identity, unseal, verify
from repro.secagg.masks import add_mask, mask
from repro.secagg.shamir import Entropy

_ROOM = 1 << 28  # bytes of shares projected at a time; each time the matrix is drawn again

Answers = dict[int, np.ndarray]  # mask -> what its share answers


class Member:
    """One member in one round: ``key``, ``complaints``, ``learn``, ``answers``, ``confirm``,
    ``mask_digests``, ``mask_sum``, in this order."""

    def __init__(
        self,
        member: int,
        identity: Identity,
        round_: BoundedRound,
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        self.id, self.round, self._identity = member, round_, identity
        self._key = AgreementKey(entropy(32))
        self._seeds: dict[int, dict[int, bytes]] = {}  # hospital -> mask -> seed
        self._offers: dict[int, Offer] = {}
        self._answered = False
        self._accepted: tuple[int, ...] = ()
        self._agreed = False

    def key(self) -> MemberKey:
        statement = MemberKey.statement(self.round, self.id, self._key.public)
        signature = self._identity.sign("member key", statement)
        return MemberKey(self.id, self._key.public, signature)

    def complaints(self, offers: Collection[Offer]) -> list[Complaint]:
        """One for each seed that is not what its hospital has committed to."""
        if self._offers:
            raise Refused("a second set of offers in one round")
        found = []
        for offer in offers:
            if offer.hospital in self._offers or not offer.genuine(self.round):
                raise Refused("an offer that its hospital has not signed, or two of one")
            if self.id not in offer.sealed:
                raise Refused("an offer without seeds for this member: its key was kept back")
            self._offers[offer.hospital] = offer
            self._seeds[offer.hospital] = dict(
                seeds_opened(self.round, offer, self.id, self._opened(offer))
            )
            found += [
                Complaint.of(self.round, offer.hospital, number, self.id, self._identity)
                for number in self.round.held_by(self.id)
                if number not in self._seeds[offer.hospital]
            ]
        return found

    def _opened(self, offer: Offer) -> bytes:
        who = ("seeds", offer.hospital, self.id)
        try:
            key = self._key.agree(offer.ephemeral, self.round.context, *who)
            return unseal(key, offer.sealed[self.id], self.round.context)
        except Refused:
            return b""

    def learn(self, published: Mapping[int, Mapping[int, bytes]]) -> None:
        """Seeds that accused hospitals have published: hospital -> mask -> seed."""
        for hospital, seeds in published.items():
            for number in set(seeds) & set(self.round.held_by(self.id)):
                offer = self._offers[hospital]
                commitment = seed_commitment(self.round, hospital, number, seeds[number])
                if commitment == offer.commitments[number]:
                    self._seeds[hospital].setdefault(number, seeds[number])

    def answers(self, challenge: bytes, proofs: Collection[Proof]) -> dict[int, Answers]:
        """Hospital -> what this member's shares of its vector and proof answer. Once a round."""
        if self._answered:
            raise Refused("a second set of proofs in one round")
        self._answered = True
        for proof in proofs:
            offer = self._offers.get(proof.hospital)
            if (
                offer is None
                or not self._complete(proof.hospital)
                or proof.challenge != challenge
                or proof.offer != offer.digest(self.round)
                or not proof.genuine(self.round)
            ):
                raise Refused(f"a proof that hospital {proof.hospital} has not signed as it is")
        if len({proof.hospital for proof in proofs}) != len(proofs):
            raise Refused("two proofs of one hospital")
        held = self.round.held_by(self.id)
        each = len(held) * self.round.length * FIELD.dtype.itemsize
        together = max(1, _ROOM // each)
        ordered = sorted(proofs, key=lambda proof: proof.hospital)
        found: dict[int, Answers] = {}
        for start in range(0, len(ordered), together):
            found |= self._of_shares(challenge, ordered[start : start + together], held)
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
        if not all(self._complete(one) for one in accepted):
            raise Refused("a hospital whose seeds this member does not have")
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


def challenge_from(entropy: Entropy = secrets.token_bytes) -> bytes:
    """A fresh key of the matrix; the server draws it when all vectors are in."""
    return hashlib.sha256(b"repro secagg projections" + entropy(32)).digest()
