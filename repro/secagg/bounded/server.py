"""The server of a bounded round: takes what is signed, checks what is proved, sums what passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Mapping
from typing import Any

import numpy as np

from repro.secagg.bounded.bound import FIELD, P
from repro.secagg.bounded.circuit import Circuit
from repro.secagg.bounded.messages import (
    Complaint,
    MemberKey,
    Offer,
    Proof,
    array_digest,
    challenge_from,
    confirmation,
    fits_commitment,
    fits_nonce,
)
from repro.secagg.bounded.projections import project
from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.errors import Refused, RoundFailed
from repro.secagg.keys import verify


class BoundedServer:
    """Keeps the masked vectors of all hospitals until it is known who passes.

    What members say comes as member -> its word, by the connection it came on. ``excluded``:
    hospital -> why it is not in the sum. ``lying``: members whose word was not what t + 1 others
    holding the same mask say. Methods raise Refused for what is not as it was signed, RoundFailed
    where too few members answer.
    """

    def __init__(self, round_: BoundedRound) -> None:
        self.round = round_
        self.excluded: dict[int, str] = {}
        self.lying: set[int] = set()
        self.keys: dict[int, MemberKey] = {}
        self.offers: dict[int, Offer] = {}
        self.proofs: dict[int, Proof] = {}
        self._vectors: dict[int, np.ndarray] = {}
        self._masked_proofs: dict[int, np.ndarray] = {}
        self._circuit, self._challenge = Circuit(round_.bound), b""

    @property
    def proof_size(self) -> int:
        """Field elements of a masked proof."""
        return self._circuit.size

    def take_keys(self, said: Mapping[int, MemberKey]) -> list[MemberKey]:
        """The good ones, whose owners every offer has to hold seeds for."""
        self.keys = {
            one: key for one, key in said.items() if key.genuine(self.round) and key.member == one
        }
        if len(self.keys) < self.round.quorum:
            raise RoundFailed("keys", self.keys, f"{self.round.quorum} members")
        return list(self.keys.values())

    def take_offer(self, sender: int, offer: Offer, masked: np.ndarray) -> None:
        good = (
            offer.genuine(self.round)
            and offer.hospital == sender
            and set(offer.sealed) == set(self.keys)
            and self._is(masked, self.round.length, offer.masked)
        )
        if not good or sender in self.offers or sender in self.excluded:
            raise Refused("an offer that is not as it was signed, or a second one")
        self.offers[sender], self._vectors[sender] = offer, masked

    def accused(
        self, complaints: Mapping[int, Collection[Complaint]]
    ) -> dict[int, list[Complaint]]:
        """Hospital -> the complaints it has to answer: of members that it sealed seeds for."""
        found: dict[int, list[Complaint]] = {}
        for sender, each in complaints.items():
            for complaint in each:
                offer = self.offers.get(complaint.hospital)
                if offer is None or complaint.member != sender:
                    continue
                if complaint.concerns(self.round, offer, self.keys):
                    found.setdefault(complaint.hospital, []).append(complaint)
        return found

    def take_answer(
        self, hospital: int, complaints: Collection[Complaint], published: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """The published seeds that are right; a hospital that has not answered all is left out."""
        asked = {complaint.mask for complaint in complaints}
        right = {
            number: published[number]
            for number in asked & set(published)
            if fits_commitment(self.round, self.offers[hospital], number, published[number])
        }
        if len(right) < len(asked):
            self.leave_out(hospital, "gave a member no seed that it had committed to")
        return right

    def take_nonces(self, nonces: Mapping[int, bytes]) -> dict[int, bytes]:
        """Those that are as their members have committed to them."""
        good = {
            one: nonce
            for one, nonce in nonces.items()
            if one in self.keys and fits_nonce(self.round, self.keys[one], nonce)
        }
        if len(good) < self.round.quorum:
            raise RoundFailed("nonces", good, f"{self.round.quorum} members")
        self._challenge = challenge_from(self.round, self.keys.values(), good)
        return good

    def take_proof(self, sender: int, proof: Proof, masked: np.ndarray) -> None:
        if sender not in self.offers or sender in self.proofs:
            raise Refused("a proof without an offer, or a second one")
        good = (
            proof.genuine(self.round)
            and proof.hospital == sender
            and proof.challenge == self._challenge
            and proof.offer == self.offers[sender].digest(self.round)
            and self._is(masked, self._circuit.size, proof.masked)
        )
        if not good:
            raise Refused("a proof that is not as it was signed")
        self.proofs[sender], self._masked_proofs[sender] = proof, masked

    def judge(self, answers: Mapping[int, Mapping[int, Mapping[int, Any]]]) -> tuple[int, ...]:
        """member -> hospital -> mask -> answers; -> the hospitals whose proofs pass, ascending."""
        for one in sorted(set(self.offers) - set(self.proofs)):
            self.leave_out(one, "sent no proof")
        judged = sorted(self.proofs)
        own: dict[int, np.ndarray] = {}
        if judged:
            vectors = np.stack([self._vectors[one] for one in judged])
            rows = project(self._challenge, self.round.bound.rows, vectors)
            own = dict(zip(judged, rows, strict=True))
        for one in judged:
            query = self.proofs[one].digest(self.round)
            masked = self._masked_proofs.pop(one)
            total = self._circuit.answers(masked, own[one], query, constants=True)
            for number, holders in enumerate(self.round.masks):
                said = {
                    member: word
                    for member, each in answers.items()
                    if member in holders and (word := self._word(each, one, number))
                }
                agreed = np.frombuffer(self._agreed("answers", said), FIELD.dtype)
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
            if one in self.keys and verify(keys[one], "accepted", statement, signature)
        }
        if len(good) < self.round.quorum:
            raise RoundFailed("confirm", good, f"{self.round.quorum} members that confirm")
        return good

    def unmask(
        self, digests: Mapping[int, Mapping[int, bytes]]
    ) -> Generator[dict[int, int], Mapping[int, Any], np.ndarray]:
        """(length,) int64: the sum over the accepted, of which no coordinate can have wrapped.

        digests: member -> mask -> SHA-256 of its sum. Yields member -> the mask whose sum it is to
        give, of those that say what t + 1 say, in turns; takes member -> what it gave. Where a
        member's word was false, or it has gone, the next one is asked.
        """
        total = FIELD.zeros(self.round.length)
        for one in sorted(self.offers):
            FIELD.add_into(total, self._vectors[one])
        agreed: dict[int, bytes] = {}
        senders: dict[int, set[int]] = {}
        for number, holders in enumerate(self.round.masks):
            said = {
                one: each[number]
                for one, each in digests.items()
                if one in holders and isinstance(each.get(number), bytes)
            }
            agreed[number] = self._agreed("masks", said)
            senders[number] = {one for one, word in said.items() if word == agreed[number]}
        asked = Counter(dict.fromkeys(digests, 0))
        while senders:
            wanted: dict[int, int] = {}
            for number, able in senders.items():
                if not able:
                    raise RoundFailed("sums", self.offers, f"the sum of mask {number}")
                free = sorted(able - set(wanted), key=lambda one: (asked[one], one))
                if free:
                    wanted[free[0]] = number
                    asked[free[0]] += 1
            given = yield wanted
            for sender, number in wanted.items():
                if sender not in given:
                    for able in senders.values():
                        able.discard(sender)
                elif self._is(given[sender], self.round.length, agreed[number]):
                    FIELD.add_into(total, given[sender])
                    del senders[number]
                else:
                    self.lying.add(sender)
                    senders[number].discard(sender)
        whole = total.astype(np.int64)
        whole[whole > P // 2] -= P
        return whole

    def leave_out(self, hospital: int, reason: str) -> None:
        """Out of the sum, and nothing of it is kept."""
        self.excluded[hospital] = reason
        for kept in (self.offers, self.proofs, self._vectors, self._masked_proofs):
            kept.pop(hospital, None)

    def _agreed(self, phase: str, said: Mapping[int, bytes]) -> bytes:
        """What t + 1 or more say: one of them at least is honest."""
        word, times = Counter(said.values()).most_common(1)[0] if said else (b"", 0)
        if times <= self.round.faults:
            needed = f"{self.round.faults + 1} members that say the same"
            raise RoundFailed(phase, self.offers, needed)
        self.lying |= {one for one, each in said.items() if each != word}
        return word

    def _word(self, answers: Mapping[int, Mapping[int, Any]], hospital: int, number: int) -> bytes:
        """A member's answers, as bytes; none for what are no answers."""
        found = answers.get(hospital, {}).get(number)
        size = self._circuit.answer_size
        if not isinstance(found, np.ndarray) or found.dtype != FIELD.dtype:
            return b""
        return found.tobytes() if found.shape == (size,) else b""

    @staticmethod
    def _is(elements: Any, length: int, digest: bytes) -> bool:
        """Whether it is a vector of field elements, and the one that was signed for."""
        if not isinstance(elements, np.ndarray) or elements.dtype != FIELD.dtype:
            return False
        whole = elements.shape == (length,) and int(elements.max()) < P
        return whole and array_digest(elements) == digest
