"""A hospital's side of one round: its phases, each once, in order (Bonawitz et al. 2017, fig. 4).

Whatever the server sends, an honest hospital gives out its masked input once, one share of
each neighbour's secret, and only for the survivors that a quorum has signed. It encodes its
vector itself, by the round's encoding.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from repro.errors import InputError
from repro.secagg import messages, sealing, shamir
from repro.secagg.errors import Refused
from repro.secagg.keys import SIGNATURE_BYTES, AgreementKey, Identity, commit, derive, verify
from repro.secagg.masks import add_mask, subtract_mask
from repro.secagg.messages import Advertise, Buffer, Kind
from repro.secagg.rounds import PHASES, Round
from repro.secagg.shamir import Entropy


@dataclass(frozen=True)
class Contribution:
    """What a hospital puts into the sum: its vector, (length,), and the weight it counts with.

    rounding_key: 64 bits for the encoding's stochastic rounding; None for fresh entropy. A
    known key makes a run repeatable; the rounding of an update is no secret of the protocol.
    """

    vector: np.ndarray
    weight: int = 1
    rounding_key: int | None = None


class Hospital:
    """One hospital in one round.

    round_: the public settings, from what the hospital itself holds and from nothing that only
    the server says. identity: its signing key, kept from round to round; its counter has to
    agree that this is the next round. entropy: n -> n secret uniform bytes.
    """

    def __init__(
        self,
        hospital: int,
        identity: Identity,
        round_: Round,
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        if round_.directory.hospitals.get(hospital) != identity.public:
            raise InputError("hospital", hospital, "one whose identity the directory holds")
        identity.join(round_.session, round_.number)
        self.id, self.round, self.phase = hospital, round_, PHASES[0]
        self._identity, self._entropy = identity, entropy
        self._mask_key, self._seal_key = (AgreementKey(entropy(32)) for _ in range(2))
        self._seed = entropy(32)
        self._neighbours: dict[int, Advertise] = {}  # those that advertised
        self._ephemerals: dict[int, AgreementKey] = {}  # holder -> what its shares are sealed by
        self._held: dict[int, sealing.Shares] = {}  # owner -> its shares
        self._accused: set[int] = set()
        self._sharers: frozenset[int] = frozenset()
        self._survivors: frozenset[int] = frozenset()

    def answer(
        self, message: Buffer, contribution: Callable[[], Contribution | np.ndarray]
    ) -> bytearray:
        """What this hospital answers to any message of the server's.

        contribution: called when the masked input is due, not before. Raises Refused for a
        message that is out of place, and where the phase's own method does.
        """
        phase = messages.phase_of(message)
        if phase == "masked":
            self._open("masked", Kind.SHARERS, message)  # before any work is done for it
            return self.masked_input(message, contribution())
        steps = {
            "share": self.share_keys,
            "verify": self.verify_shares,
            "open": self.open_shares,
            "consistency": self.consistency_check,
            "unmask": self.unmask,
        }
        return steps[phase](message)

    def advertise_keys(self) -> bytearray:
        """-> ADVERTISE: the public halves of this round's keys, and what the round is bound to."""
        self._expect("advertise")
        with self._moving_on("share"):
            keys = Advertise.of(self.round, self._mask_key.public, self._seal_key.public)
            return self._wrap(Kind.ADVERTISE, keys.to_bytes())

    def share_keys(self, roster: Buffer) -> bytearray:
        """ROSTER -> SHARE: shares of both secrets, sealed for each neighbour that advertised."""
        payload = self._open("share", Kind.ROSTER, roster)
        with self._moving_on("verify"):
            self._neighbours = self._read_roster(messages.Roster.from_bytes(payload))
            shares = self._split_secrets(sorted({*self._neighbours, self.id}))
            commitment = seed_commitment(self.round, self.id, self._seed)
            return self._wrap(Kind.SHARE, messages.Share(commitment, shares).to_bytes())

    def verify_shares(self, delivery: Buffer) -> bytearray:
        """DELIVERY -> VERIFY: complaints about what neighbours sealed, usually none."""
        payload = self._open("verify", Kind.DELIVERY, delivery)
        with self._moving_on("masked"):
            complaints = self._read_delivery(messages.Delivery.from_bytes(payload))
            return self._wrap(Kind.VERIFY, messages.UpheldComplaints(complaints).to_bytes())

    def open_shares(self, accused: Buffer) -> bytearray:
        """ACCUSED -> OPEN: how the complaining holders' own shares, and no others, were sealed.

        Comes, if at all, once, before the sharers are known.
        """
        payload = self._open("masked", Kind.ACCUSED, accused)
        with self._moving_on("masked"):
            holders = self._read_complaints(messages.Accused.from_bytes(payload))
            secrets_ = tuple((one, self._ephemerals.pop(one).secret) for one in holders)
            self._ephemerals.clear()
            return self._wrap(Kind.OPEN, messages.Opened(secrets_).to_bytes())

    def masked_input(self, sharers: Buffer, contribution: Contribution | np.ndarray) -> bytearray:
        """SHARERS -> MASKED. contribution: a bare vector counts with weight 1; not changed."""
        if isinstance(contribution, np.ndarray):
            contribution = Contribution(contribution)
        self._check(contribution)
        payload = self._open("masked", Kind.SHARERS, sharers)
        with self._moving_on("consistency"):
            neighbours = self._read_sharers(messages.Sharers.from_bytes(payload, self._bitmap))
            # Encoded and masked where it is sent from: a vector may be as large as the model.
            length = SIGNATURE_BYTES + self.round.dimension * self.round.field.dtype.itemsize
            message, room = messages.blank(Kind.MASKED, self.id, self.round, length)
            statement = sharer_statement(self.round, self._sharers)
            room[:SIGNATURE_BYTES] = self._identity.sign("sharers", statement)
            masked = messages.Masked.room(room, self.round.field).vector
            self._encode(contribution, masked)
            self._add_masks(masked, neighbours)
            return messages.sign(message, self._identity)

    def consistency_check(self, survivors: Buffer) -> bytearray:
        """SURVIVORS -> CONSISTENCY: the signature under who shared and who survived."""
        payload = self._open("consistency", Kind.SURVIVORS, survivors)
        with self._moving_on("unmask"):
            message = messages.Survivors.from_bytes(payload, self._bitmap)
            self._survivors = self._read_survivors(message)
            statement = survivor_statement(self.round, self._sharers, self._survivors)
            signature = self._identity.sign("survivors", statement)
            return self._wrap(Kind.CONSISTENCY, messages.Consistency(signature).to_bytes())

    def unmask(self, confirmation: Buffer) -> bytearray:
        """CONFIRMATION -> UNMASK: one share of each neighbour's self mask or key."""
        payload = self._open("unmask", Kind.CONFIRMATION, confirmation)
        with self._moving_on("done"):
            self._check_quorum(messages.Confirmation.from_bytes(payload))
            shares = tuple(
                (owner, of_seed if owner in self._survivors else of_key)
                for owner, (of_seed, of_key) in sorted(self._held.items())
            )
            self._forget()
            return self._wrap(Kind.UNMASK, messages.Unmask(shares).to_bytes())

    def _expect(self, phase: str) -> None:
        if self.phase != phase:
            raise Refused(f"a request for phase {phase} in phase {self.phase}")

    def _open(self, phase: str, kind: Kind, message: Buffer) -> memoryview:
        """The payload of the server's message. A refusal here changes nothing: a message that
        is not the server's, or not for this round and phase, may come from anyone."""
        self._expect(phase)
        return messages.unwrap(message, kind, self.round)[1]

    @contextmanager
    def _moving_on(self, phase: str) -> Iterator[None]:
        """Into the next phase if the block succeeds. A refusal in it is final: what it refused
        bore the server's signature, so the server cheats, and gets nothing more."""
        try:
            yield
        except Refused:
            self._forget()
            self.phase = "aborted"
            raise
        self.phase = phase

    def _forget(self) -> None:
        self._seed = b""
        self._held.clear()
        self._ephemerals.clear()
        del self._mask_key, self._seal_key

    def _split_secrets(self, holders: list[int]) -> tuple[messages.SealedShare, ...]:
        places = [self.round.place(holder) for holder in holders]
        of_seed, of_key = (
            shamir.split(secret, self.round.threshold, places, self._entropy)
            for secret in (self._seed, self._mask_key.secret)
        )
        return tuple(
            self._seal_share(holder, of_seed[place], of_key[place])
            for holder, place in zip(holders, places, strict=True)
        )

    def _read_roster(self, roster: messages.Roster) -> dict[int, Advertise]:
        neighbours: dict[int, Advertise] = {}
        keys = {self._mask_key.public, self._seal_key.public}
        for advertised in roster.advertised:
            sender, payload = messages.unwrap_first(advertised, Kind.ADVERTISE, self.round)
            if sender not in self.round.graph[self.id] or sender in neighbours:
                raise Refused(f"a roster with {sender}, no neighbour or named twice")
            neighbours[sender] = Advertise.from_bytes(payload)
            keys |= {neighbours[sender].mask_key, neighbours[sender].seal_key}
        if len(keys) != 2 * (len(neighbours) + 1):
            raise Refused("a roster in which two keys are the same")
        self._enough(len(neighbours) + 1, "advertised")
        return neighbours

    def _seal_share(self, holder: int, of_seed: bytes, of_key: bytes) -> messages.SealedShare:
        if holder == self.id:
            self._held[holder] = of_seed, of_key
            return sealing.own_share(self.round, self.id, self._held[holder])
        self._ephemerals[holder] = ephemeral = AgreementKey(self._entropy(32))
        to, shares = self._neighbours[holder].seal_key, (of_seed, of_key)
        return sealing.sealed_share(
            self.round, self.id, self._identity, holder, shares, ephemeral, to
        )

    def _read_delivery(self, delivery: messages.Delivery) -> tuple[tuple[int, bytes], ...]:
        """Keeps the neighbours' shares; returns whom to accuse, and the complaints."""
        owners = [owner for owner, _ in delivery.sealed]
        if owners != sorted(set(owners) & set(self._neighbours)):
            raise Refused("shares of hospitals whose keys this one never saw")
        self._enough(len(owners) + 1, "shared")
        complaints = []
        for owner, raw in delivery.sealed:
            entry = messages.SealedShare.from_bytes(raw)
            if entry.holder != self.id:  # the server's lie: nothing to complain of
                raise Refused("a share that was sealed for another hospital")
            if not sealing.signed_by(self.round, owner, entry):
                # The owner's fault or the server's. A complaint would have the owner open a
                # share that may be good, so there is none: the server can see for itself.
                complaints.append((owner, sealing.NO_COMPLAINT))
                continue
            try:
                self._held[owner] = sealing.opened(
                    self.round, owner, entry, self._seal_key, entry.ephemeral
                )
            except Refused:
                signed = sealing.complaint(self.round, owner, self.id, self._identity)
                complaints.append((owner, signed))
        self._accused = {owner for owner, _ in complaints}
        return tuple(complaints)

    def _read_complaints(self, accused: messages.Accused) -> list[int]:
        holders = [holder for holder, _ in accused.complaints]
        if holders != sorted(set(holders) & set(self._ephemerals)) or not holders:
            raise Refused("complaints of hospitals for which nothing was sealed, or none")
        if len(holders) >= self.round.threshold:
            raise Refused(f"{len(holders)} complaints: to open that many would reveal the secrets")
        for holder, signature in accused.complaints:
            if not sealing.complained(self.round, self.id, holder, signature):
                raise Refused(f"a complaint that hospital {holder} has not signed")
        return holders

    def _read_sharers(self, message: messages.Sharers) -> list[int]:
        """Fixes with whom to mask; returns the neighbours among them, ascending."""
        self._sharers = self.round.from_bitmap(message.sharers)
        owners = self._sharers & self.round.graph[self.id]
        if self.id not in self._sharers:
            raise Refused("a set of sharers without this hospital")
        if not owners <= set(self._held):
            # Whom this hospital accused is out for good: its complaint is true.
            raise Refused("a set of sharers with one whose shares this hospital does not hold")
        self._enough(len(owners) + 1, "shared well")
        self._held = {one: self._held[one] for one in sorted({*owners, self.id})}
        self._ephemerals.clear()
        return sorted(owners)

    def _check(self, contribution: Contribution) -> None:
        vector, length = contribution.vector, self.round.length
        if vector.shape != (length,):
            raise InputError("vector", f"{vector.shape}", f"({length},)")
        self.round.encoding.check(vector, contribution.weight)

    def _encode(self, contribution: Contribution, room: np.ndarray) -> None:
        key = contribution.rounding_key
        if key is None:
            key = int.from_bytes(self._entropy(8), "little")
        self.round.encoding.encode(contribution.vector, contribution.weight, key, room)

    def _add_masks(self, vector: np.ndarray, neighbours: list[int]) -> None:
        field, context = self.round.field, self.round.context
        add_mask(field, vector, self_mask_key(self._seed, context, self.id))
        for other in neighbours:
            public = self._neighbours[other].mask_key
            key = pairwise_mask_key(self._mask_key, public, context, self.id, other)
            # The same mask with opposite signs at the two ends: it vanishes from the sum.
            (add_mask if self.id < other else subtract_mask)(field, vector, key)

    def _read_survivors(self, message: messages.Survivors) -> frozenset[int]:
        survivors = self.round.from_bitmap(message.survivors)
        if self.id not in survivors or not survivors <= self._sharers:
            raise Refused("survivors without this hospital, or that never shared their keys")
        shortfall = self.round.shortfall(self._sharers, survivors)
        if shortfall:
            raise Refused(f"{len(survivors)} survivors, which leaves less than {shortfall}")
        if [one for one, _ in message.signatures] != sorted(survivors & self.round.graph[self.id]):
            raise Refused("signatures that are not those of the surviving neighbours")
        # A neighbour that was told of other sharers is masked with others than its unmasking
        # would account for, perhaps with colluders only: its seed must not come out.
        statement = sharer_statement(self.round, self._sharers)
        self._verify_all(message.signatures, "sharers", statement)
        return survivors

    def _check_quorum(self, confirmation: messages.Confirmation) -> None:
        signers = [signer for signer, _ in confirmation.signatures]
        entitled = self._survivors & self.round.confirmers
        if len(set(signers)) != len(signers) or not set(signers) <= entitled:
            raise Refused("signatures of strangers, or one hospital's twice")
        if len(signers) < self.round.quorum:
            raise Refused(f"{len(signers)} signatures; a quorum is {self.round.quorum}")
        statement = survivor_statement(self.round, self._sharers, self._survivors)
        self._verify_all(confirmation.signatures, "survivors", statement)

    def _verify_all(
        self, signatures: Iterable[tuple[int, bytes]], purpose: str, statement: bytes
    ) -> None:
        for signer, signature in signatures:
            public = self.round.directory.hospitals[signer]
            if not verify(public, purpose, statement, signature):
                raise Refused(f"hospital {signer} has not signed the same {purpose}")

    def _wrap(self, kind: Kind, payload: bytes) -> bytearray:
        return messages.wrap(kind, self.id, self.round, self._identity, payload)

    @property
    def _bitmap(self) -> int:
        return self.round.bitmap_bytes

    def _enough(self, holders: int, done: str) -> None:
        if holders < self.round.threshold:
            needed = self.round.threshold
            raise Refused(f"only {holders} share holders have {done}; {needed} are needed")


def seed_commitment(round_: Round, owner: int, seed: bytes) -> bytes:
    return commit(round_.context, b"seed", owner, seed)


def self_mask_key(seed: bytes, context: bytes, hospital: int) -> bytes:
    return derive(seed, context, "self mask", hospital)


def pairwise_mask_key(
    key: AgreementKey, public: bytes, context: bytes, one: int, other: int
) -> bytes:
    """The key of the mask between two hospitals; the same from either end."""
    return key.agree(public, context, "pairwise mask", min(one, other), max(one, other))


def sharer_statement(round_: Round, sharers: frozenset[int]) -> bytes:
    """What a hospital signs with its masked input: with whom it is masked."""
    return round_.context + round_.to_bitmap(sharers)


def survivor_statement(round_: Round, sharers: frozenset[int], survivors: frozenset[int]) -> bytes:
    """What the consistency check signs."""
    return round_.context + round_.to_bitmap(sharers) + round_.to_bitmap(survivors)
