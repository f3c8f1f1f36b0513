"""The server of a bounded round as its network sees it: a phase's messages in, the next one's out.

A message that is late, double, malformed or foreign is refused, noted in ``refusals`` and
forgotten. Who has nothing to say in a phase of the committee's may go on being silent; a member
that is silent once is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

import numpy as np

from repro.errors import InputError
from repro.secagg import envelope
from repro.secagg.bounded import wire
from repro.secagg.bounded.messages import SEED_BYTES, Complaint, MemberKey, Proof
from repro.secagg.bounded.server import BoundedServer
from repro.secagg.bounded.setting import PHASES, BoundedRound
from repro.secagg.bounded.wire import BoundedKind
from repro.secagg.context import DIGEST_BYTES
from repro.secagg.envelope import FINGERPRINTS_BYTES
from repro.secagg.errors import Refused, RoundFailed
from repro.secagg.keys import SIGNATURE_BYTES, Identity
from repro.secagg.messages import SERVER
from repro.secagg.packing import Buffer, blobs, each_blob, exactly, split

Answers = dict[int, bytearray]  # hospital -> the message to send to it


class ServerSide:
    """The server in one round; the same attributes as ``repro.secagg.server.Server``.

    After the round ``total`` is the sum, (length,) int64, over ``survivors``; ``excluded`` says why
    somebody is not in it, ``lying`` are members that said what others contradict.
    """

    def __init__(self, identity: Identity, round_: BoundedRound) -> None:
        if round_.directory.server != identity.public:
            raise InputError("identity", "a key", "the one the directory has for the server")
        self.round, self._identity = round_, identity
        self.phase = PHASES[0]
        self.awaited: set[int] = set(round_.roster)
        self.refusals: list[str] = []
        self.survivors: frozenset[int] = frozenset()
        self.total: np.ndarray | None = None
        self._core = BoundedServer(round_)
        self._members: set[int] = set()  # those that have not been silent
        self._said: dict[int, Any] = {}  # in this phase
        self._complaints: dict[int, list[Complaint]] = {}
        self._nonces: dict[int, bytes] = {}
        self._accepted: tuple[int, ...] = ()
        self._unmasking: Generator[dict[int, int], Mapping[int, Any], np.ndarray] | None = None

    @property
    def excluded(self) -> dict[int, str]:
        return self._core.excluded

    @property
    def lying(self) -> frozenset[int]:
        return frozenset(self._core.lying)

    def dismisses(self, hospital: int) -> bool:
        """Whether nothing more will be asked of it in this round."""
        to_prove = self.phase in PHASES[: PHASES.index("proof") + 1]
        return hospital not in self._members and not (to_prove and hospital in self._core.offers)

    def receive(self, received: Iterable[Buffer]) -> Answers:
        """What the phase that is on makes of its messages: the next phase's, by receiver.

        Raises RoundFailed where too few are left or agree.
        """
        steps: dict[str, Callable[[], Answers]] = {
            "advertise": self._after_advertise,
            "masked": self._after_masked,
            "complaints": self._after_complaints,
            "seeds": self._after_seeds,
            "nonces": self._after_nonces,
            "proof": self._after_proof,
            "answers": self._after_answers,
            "confirm": self._after_confirm,
            "masks": self._after_masks,
            "sums": self._after_sums,
        }
        if self.phase not in steps:
            raise Refused(f"messages in phase {self.phase}")
        self._said = {}
        for message in received:
            self._take(message)
        try:
            return steps[self.phase]()
        except RoundFailed as failure:
            excluded, self._core = self._core.excluded, BoundedServer(self.round)
            self._core.excluded = excluded  # nothing else is kept
            self._advance("failed", ())
            liars = failure.culprits or excluded
            raise RoundFailed(failure.phase, failure.remaining, failure.needed, liars) from None

    # Reading

    def _take(self, message: Buffer) -> None:
        phase, kind = self.phase, wire.ANSWER[self.phase]
        try:
            unwrap = envelope.unwrap_first if phase == "advertise" else envelope.unwrap
            sender, payload = unwrap(message, kind, self.round)
            if sender not in self.awaited:
                raise Refused(f"a message that is late or came twice, from {sender}")
            try:
                self._said[sender] = self._read(sender, payload)
            except Refused as reason:
                if phase in ("masked", "proof"):
                    self._core.leave_out(sender, str(reason))
                raise
        except Refused as reason:
            self.refusals.append(f"{phase}: {reason}")
        else:
            self.awaited.discard(sender)

    def _read(self, sender: int, payload: Buffer) -> Any:
        """What a hospital says in this phase."""
        match self.phase:
            case "advertise":
                size = wire.SIZE[MemberKey]
                raw, _ = split(exactly(payload, size + FINGERPRINTS_BYTES), size)
                return wire.unpacked(MemberKey, raw)
            case "masked":
                parts = each_blob(payload)
                if len(parts) != 2:
                    raise Refused("an offer without a vector")
                offer = wire.unpacked_offer(self.round, parts[0])
                masked = wire.elements(parts[1], self.round.length)
                self._core.take_offer(sender, offer, masked)
                return None
            case "complaints":
                return wire.unpacked_list(Complaint, payload)
            case "seeds":
                return wire.unpacked_pairs(payload, SEED_BYTES)
            case "nonces":
                return exactly(payload, SEED_BYTES)
            case "proof":
                raw, rest = split(payload, wire.SIZE[Proof])
                masked = wire.elements(rest, self._core.proof_size)
                self._core.take_proof(sender, wire.unpacked(Proof, raw), masked)
                return None
            case "answers":
                return wire.unpacked_answers(self.round, sender, payload)
            case "confirm":
                return exactly(payload, SIGNATURE_BYTES)
            case "masks":
                return wire.unpacked_pairs(payload, DIGEST_BYTES)
            case _:
                return wire.elements(payload, self.round.length) if len(payload) else None

    # What comes next

    def _after_advertise(self) -> Answers:
        present = set(self._said)
        if len(present) < self.round.minimum:
            raise RoundFailed("advertise", present, f"{self.round.minimum} hospitals")
        members = {one: key for one, key in self._said.items() if one in self.round.committee}
        keys = self._core.take_keys(members)
        self._members = set(self._core.keys)
        return self._ask("masked", present, wire.packed_list(keys))

    def _after_masked(self) -> Answers:
        offers = self._core.offers
        if len(offers) < self.round.minimum:
            raise RoundFailed("masked", offers, f"{self.round.minimum} offers")
        listed = blobs(wire.packed_offer(offers[one]) for one in sorted(offers))
        return self._ask("complaints", self._members, listed)

    def _after_complaints(self) -> Answers:
        self._members &= set(self._said)
        self._complaints = self._core.accused(self._said)
        if not self._complaints:
            return self._publish({})
        self._advance("seeds", self._complaints)
        return {
            one: self._wrap(BoundedKind.COMPLAINED, wire.packed_list(complaints))
            for one, complaints in sorted(self._complaints.items())
        }

    def _after_seeds(self) -> Answers:
        published = {
            one: self._core.take_answer(one, complaints, self._said.get(one, {}))
            for one, complaints in self._complaints.items()
        }
        offers = self._core.offers
        return self._publish({one: seeds for one, seeds in published.items() if one in offers})

    def _publish(self, seeds: Mapping[int, Mapping[int, bytes]]) -> Answers:
        return self._ask("nonces", self._members, wire.packed_seeds(seeds))

    def _after_nonces(self) -> Answers:
        self._nonces = self._core.take_nonces(self._said)
        self._members &= set(self._nonces)
        return self._ask("proof", self._core.offers, wire.packed_pairs(self._nonces))

    def _after_proof(self) -> Answers:
        proofs = self._core.proofs
        listed = wire.packed_list(proofs[one] for one in sorted(proofs))
        payload = blobs([wire.packed_pairs(self._nonces), listed])
        return self._ask("answers", self._members, payload)

    def _after_answers(self) -> Answers:
        self._members &= set(self._said)
        self._accepted = self._core.judge(self._said)
        return self._ask("confirm", self._members, wire.packed_numbers(self._accepted))

    def _after_confirm(self) -> Answers:
        self._members &= set(self._said)
        signatures = self._core.quorum(self._accepted, self._said)
        return self._ask("masks", self._members, wire.packed_pairs(signatures))

    def _after_masks(self) -> Answers:
        self._members &= set(self._said)
        self._unmasking = self._core.unmask(self._said)
        return self._sums(lambda unmasking: next(unmasking))

    def _after_sums(self) -> Answers:
        if self._unmasking is None:  # they know that it is over
            self._advance("done", ())
            return {}
        self._members &= set(self._said)
        given = {one: said for one, said in self._said.items() if said is not None}
        return self._sums(lambda unmasking: unmasking.send(given))

    def _sums(self, step: Callable[[Any], dict[int, int]]) -> Answers:
        """Who is to give which mask's sum; or, when all are there, that it is over."""
        try:
            wanted = step(self._unmasking)
        except StopIteration as ended:
            self.total, self._unmasking = ended.value, None
            self.survivors = frozenset(self._accepted)
            self.refusals += [
                f"sums: member {one} said what others contradict" for one in sorted(self.lying)
            ]
            wanted = dict.fromkeys(self._members, wire.END)
        self._advance("sums", self._members)
        return {
            one: self._wrap(BoundedKind.WANTED, wanted.get(one, wire.NOTHING).to_bytes(8, "little"))
            for one in sorted(self._members)
        }

    def _ask(self, phase: str, whom: Iterable[int], payload: bytes) -> Answers:
        """The same message for all of them begins the phase."""
        self._advance(phase, whom)
        message = self._wrap(wire.EXCHANGES[phase][0], payload)
        return dict.fromkeys(sorted(self.awaited), message)

    def _advance(self, phase: str, awaited: Iterable[int]) -> None:
        self.phase, self.awaited = phase, set(awaited)

    def _wrap(self, kind: BoundedKind, payload: bytes) -> bytearray:
        return envelope.wrap(kind, SERVER, self.round, self._identity, payload)
