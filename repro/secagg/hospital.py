"""A hospital's side of one round: five phases, each once, in order (Bonawitz et al. 2017, fig. 4).

Whatever the server sends, an honest hospital gives out its masked input once, one share of
each neighbour's secret, and only for the survivors that a quorum has signed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from repro.errors import InputError
from repro.secagg import messages, shamir
from repro.secagg.errors import Refused
from repro.secagg.keys import (
    SIGNATURE_BYTES,
    AgreementKey,
    Identity,
    commit,
    derive,
    seal,
    unseal,
    verify,
)
from repro.secagg.masks import add_mask, subtract_mask
from repro.secagg.messages import Advertise, Buffer, Kind
from repro.secagg.rounds import PHASES, Round
from repro.secagg.shamir import SHARE_BYTES, Entropy


class Hospital:
    """One hospital in one round.

    round_: the public settings, from a source other than the server. identity: its signing key,
    kept from round to round. entropy: n -> n secret uniform bytes.
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
        self._held: dict[int, tuple[bytes, bytes]] = {}  # owner -> shares of (seed, mask key)
        self._sharers: frozenset[int] = frozenset()
        self._survivors: frozenset[int] = frozenset()

    def advertise_keys(self) -> bytearray:
        """-> ADVERTISE: the public halves of this round's keys."""
        self._expect("advertise")
        with self._moving_on("share"):
            keys = Advertise(self._mask_key.public, self._seal_key.public)
            return self._wrap(Kind.ADVERTISE, keys.to_bytes())

    def share_keys(self, roster: Buffer) -> bytearray:
        """ROSTER -> SHARE: shares of both secrets, sealed for each neighbour that advertised."""
        payload = self._open("share", Kind.ROSTER, roster)
        with self._moving_on("masked"):
            self._neighbours = self._read_roster(messages.Roster.from_bytes(payload))
            shares = self._split_secrets(sorted({*self._neighbours, self.id}))
            commitment = seed_commitment(self.round, self.id, self._seed)
            return self._wrap(Kind.SHARE, messages.Share(commitment, shares).to_bytes())

    def masked_input(self, delivery: Buffer, vector: np.ndarray) -> bytearray:
        """DELIVERY -> MASKED. vector: (dimension,) reduced field elements; not changed."""
        if vector.shape != (self.round.dimension,) or vector.dtype != self.round.field.dtype:
            expected = f"({self.round.dimension},) of {self.round.field.dtype}"
            raise InputError("vector", f"{vector.shape} of {vector.dtype}", expected)
        payload = self._open("masked", Kind.DELIVERY, delivery)
        with self._moving_on("consistency"):
            shared = messages.Delivery.from_bytes(payload, self.round.bitmap_bytes)
            neighbours = self._read_delivery(shared)
            # Masked where it will be sent from: a vector may be as large as the model.
            length = SIGNATURE_BYTES + vector.nbytes
            message, room = messages.blank(Kind.MASKED, self.id, self.round, length)
            statement = sharer_statement(self.round, self._sharers)
            room[:SIGNATURE_BYTES] = self._identity.sign("sharers", statement)
            masked = messages.Masked.room(room, self.round.field).vector
            masked[:] = vector
            self._add_masks(masked, neighbours)
            return messages.sign(message, self._identity)

    def consistency_check(self, survivors: Buffer) -> bytearray:
        """SURVIVORS -> CONSISTENCY: the signature under who shared and who survived."""
        payload = self._open("consistency", Kind.SURVIVORS, survivors)
        with self._moving_on("unmask"):
            message = messages.Survivors.from_bytes(payload, self.round.bitmap_bytes)
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
            sender, payload = messages.unwrap(advertised, Kind.ADVERTISE, self.round)
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
            sealed = bytes(messages.SEALED_BYTES)
        else:
            key, associated = self._channel(holder, self.id, holder)
            sealed = seal(key, of_seed + of_key, associated)
        return messages.SealedShare(
            holder,
            share_commitment(self.round, "seed", self.id, holder, of_seed),
            share_commitment(self.round, "key", self.id, holder, of_key),
            sealed,
        )

    def _channel(self, neighbour: int, source: int, target: int) -> tuple[bytes, bytes]:
        """The key that seals shares from source to target, and the data it is bound to."""
        public, context = self._neighbours[neighbour].seal_key, self.round.context
        key = self._seal_key.agree(public, context, "seal", source, target)
        return key, context + source.to_bytes(8, "little") + target.to_bytes(8, "little")

    def _read_delivery(self, delivery: messages.Delivery) -> list[int]:
        """Keeps the neighbours' shares; returns the neighbours that shared, ascending."""
        self._sharers = self.round.from_bitmap(delivery.sharers)
        owners = [owner for owner, _ in delivery.sealed]
        if owners != sorted(self._sharers & self.round.graph[self.id]):
            raise Refused("shares that are not those of the neighbours said to have shared")
        if self.id not in self._sharers or not set(owners) <= set(self._neighbours):
            raise Refused("a set of sharers without this hospital, or with keys it never saw")
        self._enough(len(owners) + 1, "shared")
        for owner, sealed in delivery.sealed:
            key, associated = self._channel(owner, owner, self.id)
            opened = unseal(key, sealed, associated)
            self._held[owner] = opened[:SHARE_BYTES], opened[SHARE_BYTES:]
        return owners

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

    def _enough(self, holders: int, done: str) -> None:
        if holders < self.round.threshold:
            needed = self.round.threshold
            raise Refused(f"only {holders} share holders have {done}; {needed} are needed")


def share_commitment(round_: Round, secret: str, owner: int, holder: int, share: bytes) -> bytes:
    return commit(round_.context, b"share", secret.encode(), owner, holder, share)


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
