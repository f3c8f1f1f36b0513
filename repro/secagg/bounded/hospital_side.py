"""A hospital in a bounded round as its network sees it: a message in, its answer out.

Its part on the committee, if it has one, answers on the same connection. What it refuses is in
``BoundedHospital`` and ``Member``; here are bytes and their order.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from repro.errors import InputError
from repro.secagg import envelope
from repro.secagg.bounded import wire
from repro.secagg.bounded.hospital import BoundedHospital
from repro.secagg.bounded.member import Member
from repro.secagg.bounded.messages import SEED_BYTES, Complaint, MemberKey, Proof
from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.context import fingerprints
from repro.secagg.errors import Refused
from repro.secagg.hospital import Contribution
from repro.secagg.keys import SIGNATURE_BYTES, Identity
from repro.secagg.packing import Buffer, blobs, each_blob, exactly
from repro.secagg.shamir import Entropy

Give = Callable[[], Contribution | np.ndarray]


class HospitalSide:
    """One hospital in one round: ``advertise_keys``, then ``answer`` until ``phase`` is "done".

    round_, identity, entropy: as ``BoundedHospital`` has them. kind, member: the classes that play
    it. Raises InputError for an identity that the directory does not have.
    """

    def __init__(
        self,
        hospital: int,
        identity: Identity,
        round_: BoundedRound,
        *,
        entropy: Entropy = secrets.token_bytes,
        kind: type[BoundedHospital] = BoundedHospital,
        member: type[Member] = Member,
    ) -> None:
        if round_.directory.hospitals.get(hospital) != identity.public:
            raise InputError("hospital", hospital, "one whose identity the directory holds")
        self.id, self.round, self.phase = hospital, round_, "advertise"
        self._identity = identity
        self._hospital = kind(hospital, identity, round_, entropy=entropy)
        on_committee = hospital in round_.committee
        self._member = self._hospital.member(member) if on_committee else None
        self._keys: list[MemberKey] = []

    def advertise_keys(self) -> bytearray:
        """-> ADVERTISE: that it is here, its key if it is a member, what the round is bound to."""
        if self.phase != "advertise":
            raise Refused("a second advertisement in one round")
        self.phase = "masked"
        key = bytes(wire.SIZE[MemberKey])
        if self._member is not None:
            key = wire.packed(self._member.key())
        return self._wrap("advertise", key + fingerprints(self.round.parts))

    def answer(self, message: Buffer, contribution: Give) -> bytearray:
        """What this hospital answers to any message of the server's.

        contribution: called when the masked vector is due, not before. Raises Refused for a
        message that is not the server's or out of place (nothing changes), or that shows it to
        cheat: then the round is over for this hospital.
        """
        phase = wire.phase_of(message)
        _, payload = envelope.unwrap(message, wire.EXCHANGES[phase][0], self.round)
        if self.phase in ("aborted", "done") or (phase == "masked") != (self.phase == "masked"):
            raise Refused(f"a request for phase {phase} in phase {self.phase}")
        with self._moving_on(phase):
            steps: dict[str, Callable[[Buffer], bytes]] = {
                "complaints": self._complaints,
                "seeds": self._seeds,
                "nonces": self._nonce,
                "proof": self._proof,
                "answers": self._answers,
                "confirm": self._confirm,
                "masks": self._masks,
                "sums": self._sum,
            }
            if phase == "masked":
                said = self._masked(payload, contribution)
            else:
                said = steps[phase](payload)
            return self._wrap(phase, said)

    @contextmanager
    def _moving_on(self, phase: str) -> Iterator[None]:
        try:
            yield
        except Refused:
            self.phase = "aborted"
            raise
        if self.phase != "done":
            self.phase = phase if phase != "masked" else "complaints"

    def _masked(self, payload: Buffer, contribution: Give) -> bytes:
        self._keys = wire.unpacked_list(MemberKey, payload)
        given = contribution()
        vector = given if isinstance(given, np.ndarray) else given.vector
        offer, masked = self._hospital.offer(self._keys, vector)
        return blobs([wire.packed_offer(offer), masked.tobytes()])

    def _complaints(self, payload: Buffer) -> bytes:
        offers = [wire.unpacked_offer(self.round, raw) for raw in each_blob(payload)]
        return wire.packed_list(self._on_committee.complaints(self._keys, offers))

    def _seeds(self, payload: Buffer) -> bytes:
        complaints = wire.unpacked_list(Complaint, payload)
        return wire.packed_pairs(self._hospital.published(complaints))

    def _nonce(self, payload: Buffer) -> bytes:
        self._on_committee.learn(wire.unpacked_seeds(payload))
        return self._on_committee.nonce()

    def _proof(self, payload: Buffer) -> bytes:
        proof, masked = self._hospital.prove(wire.unpacked_pairs(payload, SEED_BYTES))
        if self._member is None:  # nothing more is asked of it
            self.phase = "done"
        return wire.packed(proof) + masked.tobytes()

    def _answers(self, payload: Buffer) -> bytes:
        lists = each_blob(payload)
        if len(lists) != 2:
            raise Refused("proofs without a challenge")
        nonces = wire.unpacked_pairs(lists[0], SEED_BYTES)
        proofs = wire.unpacked_list(Proof, lists[1])
        return wire.packed_answers(self._on_committee.answers(nonces, proofs))

    def _confirm(self, payload: Buffer) -> bytes:
        return self._on_committee.confirm(wire.unpacked_numbers(payload))

    def _masks(self, payload: Buffer) -> bytes:
        signatures = wire.unpacked_pairs(payload, SIGNATURE_BYTES)
        return wire.packed_pairs(self._on_committee.mask_digests(signatures))

    def _sum(self, payload: Buffer) -> bytes:
        wanted = int.from_bytes(exactly(payload, 8), "little")
        if wanted == wire.END:
            self.phase = "done"
        if wanted in (wire.NOTHING, wire.END):
            return b""
        return self._on_committee.mask_sum(wanted).tobytes()

    @property
    def _on_committee(self) -> Member:
        if self._member is None:
            raise Refused("a request for a member of the committee")
        return self._member

    def _wrap(self, phase: str, payload: bytes) -> bytearray:
        kind = wire.ANSWER[phase]
        return envelope.wrap(kind, self.id, self.round, self._identity, payload)
