"""The server of a bounded round: takes what is signed, checks what is proved, sums what passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np

from repro.secagg.bounded.bound import FIELD, P
from repro.secagg.bounded.circuit import Circuit
from repro.secagg.bounded.member import Answers
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
from repro.secagg.errors import Refused, RoundFailed
from repro.secagg.keys import verify


class BoundedServer:
    """Keeps the masked vectors of all hospitals until it is known who passes.

    ``excluded``: hospital -> why it is not in the sum. ``lying``: members whose word was not what
    t + 1 others holding the same mask say. Methods raise RoundFailed where too few members answer.
    """

    def __init__(self, round_: BoundedRound) -> None:
        self.round = round_
        self.excluded: dict[int, str] = {}
        self.lying: set[int] = set()
        self.offers: dict[int, Offer] = {}
        self.proofs: dict[int, Proof] = {}
        self._members: set[int] = set()
        self._vectors: dict[int, np.ndarray] = {}
        self._masked_proofs: dict[int, np.ndarray] = {}
        self._circuit = Circuit(round_.bound)

    def take_keys(self, keys: Collection[MemberKey]) -> None:
        """The committee's keys, whose seeds every offer has to hold."""
        self._members = {key.member for key in keys if key.genuine(self.round)}
        self._members &= set(self.round.committee)
        if len(self._members) < self.round.quorum:
            raise RoundFailed("keys", self._members, f"{self.round.quorum} members")

    def take_offer(self, offer: Offer, masked: np.ndarray) -> None:
        good = (
            offer.genuine(self.round)
            and set(offer.sealed) == self._members
            and self._is(masked, self.round.length, offer.masked)
        )
        if not good or offer.hospital in self.offers:
            raise Refused("an offer that is not as it was signed, or a second one")
        self.offers[offer.hospital], self._vectors[offer.hospital] = offer, masked

    def accused(self, complaints: Collection[Complaint]) -> dict[int, list[Complaint]]:
        """Hospital -> the genuine complaints it has to answer."""
        found: dict[int, list[Complaint]] = {}
        for complaint in complaints:
            if complaint.hospital in self.offers and complaint.genuine(self.round):
                found.setdefault(complaint.hospital, []).append(complaint)
        return found

    def take_answer(
        self, hospital: int, complaints: Collection[Complaint], published: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """The published seeds that are right; a hospital that has not answered all is left out."""
        offer = self.offers[hospital]
        right = {
            number: published[number]
            for number in {complaint.mask for complaint in complaints} & set(published)
            if seed_commitment(self.round, hospital, number, published[number])
            == offer.commitments[number]
        }
        if len(right) < len({complaint.mask for complaint in complaints}):
            self.leave_out(hospital, "gave a member no seed that it had committed to")
        return right

    def take_proof(self, proof: Proof, masked: np.ndarray, challenge: bytes) -> None:
        one = proof.hospital
        if one not in self.offers or one in self.proofs:
            raise Refused("a proof without an offer, or a second one")
        good = (
            proof.challenge == challenge
            and proof.offer == self.offers[one].digest(self.round)
            and proof.genuine(self.round)
            and self._is(masked, self._circuit.size, proof.masked)
        )
        if not good:
            raise Refused("a proof that is not as it was signed")
        self.proofs[one], self._masked_proofs[one] = proof, masked

    def judge(
        self, challenge: bytes, answers: Mapping[int, Mapping[int, Answers]]
    ) -> tuple[int, ...]:
        """member -> hospital -> mask -> answers; -> the hospitals whose proofs pass, ascending."""
        for one in sorted(set(self.offers) - set(self.proofs)):
            self.leave_out(one, "sent no proof")
        judged = sorted(self.proofs)
        if judged:
            vectors = np.stack([self._vectors[one] for one in judged])
            own = dict(zip(judged, project(challenge, self.round.bound.rows, vectors), strict=True))
        for one in judged:
            query = self.proofs[one].digest(self.round)
            masked = self._masked_proofs.pop(one)
            total = self._circuit.answers(masked, own[one], query, constants=True)
            for number in range(len(self.round.masks)):
                said = {
                    member: each[one][number].tobytes()
                    for member, each in answers.items()
                    if member in self.round.masks[number] and number in each.get(one, {})
                }
                agreed = np.frombuffer(self._agreed("answers", said), FIELD.dtype)
                if agreed.shape != total.shape:
                    raise RoundFailed("answers", self.offers, "answers of the right length")
                total = (total + agreed) % np.uint64(P)
            if not self._circuit.accepts(total):
                proved = self.round.bound.proved
                self.leave_out(one, f"did not prove that its norm is at most {proved:.4g}")
        accepted = tuple(sorted(self.offers))
        if len(accepted) < self.round.minimum:
            raise RoundFailed("answers", accepted, f"{self.round.minimum} that pass")
        return accepted

    def quorum(
        self, accepted: tuple[int, ...], signatures: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """The members' signatures that are good; RoundFailed without a quorum of them."""
        statement = confirmation(self.round, accepted)
        keys = self.round.directory.hospitals
        good = {
            one: signature
            for one, signature in signatures.items()
            if one in self.round.committee and verify(keys[one], "accepted", statement, signature)
        }
        if len(good) < self.round.quorum:
            raise RoundFailed("confirm", good, f"{self.round.quorum} members that confirm")
        return good

    def sources(self, digests: Mapping[int, Mapping[int, bytes]]) -> dict[int, tuple[int, bytes]]:
        """Mask -> (a member that says what most say its sum is, that sum's digest).

        The members take turns, so that each sends about as many sums.
        """
        found, sends = {}, Counter(dict.fromkeys(digests, 0))
        for number, holders in enumerate(self.round.masks):
            said = {one: each[number] for one, each in digests.items() if one in holders}
            agreed = self._agreed("masks", said)
            sender = min((sends[one], one) for one in said if said[one] == agreed)[1]
            sends[sender] += 1
            found[number] = sender, agreed
        return found

    def unmask(
        self, sums: Mapping[int, np.ndarray], sources: Mapping[int, tuple[int, bytes]]
    ) -> np.ndarray:
        """(length,) int64: the sum over the accepted, of which no coordinate can have wrapped."""
        total = FIELD.zeros(self.round.length)
        for one in sorted(self.offers):
            FIELD.add_into(total, self._vectors[one])
        for number, (member, digest) in sources.items():
            if number not in sums or not self._is(sums[number], self.round.length, digest):
                self.lying.add(member)
                raise RoundFailed("masks", self.offers, "the sum a member gave the digest of")
            FIELD.add_into(total, sums[number])
        whole = total.astype(np.int64)
        whole[whole > P // 2] -= P
        return whole

    def _agreed(self, phase: str, said: Mapping[int, bytes]) -> bytes:
        """What t + 1 or more say: one of them at least is honest."""
        word, times = Counter(said.values()).most_common(1)[0] if said else (b"", 0)
        if times <= self.round.faults:
            needed = f"{self.round.faults + 1} members that say the same"
            raise RoundFailed(phase, self.offers, needed)
        self.lying |= {one for one, each in said.items() if each != word}
        return word

    def leave_out(self, hospital: int, reason: str) -> None:
        """Out of the sum, and nothing of it is kept."""
        self.excluded[hospital] = reason
        for kept in (self.offers, self.proofs, self._vectors, self._masked_proofs):
            kept.pop(hospital, None)

    @staticmethod
    def _is(elements: np.ndarray, length: int, digest: bytes) -> bool:
        """Whether it is a vector of field elements, and the one that was signed for."""
        if elements.shape != (length,) or elements.dtype != FIELD.dtype:
            return False
        return int(elements.max()) < P and array_digest(elements) == digest
