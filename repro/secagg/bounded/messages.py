"""What parties of a bounded round send: objects, not bytes. There is no wire format yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.keys import Identity, commit, verify


@dataclass(frozen=True)
class MemberKey:
    """A member's fresh X25519 public key, signed."""

    member: int
    public: bytes
    signature: bytes

    @staticmethod
    def statement(round_: BoundedRound, member: int, public: bytes) -> bytes:
        return round_.context + _number(member) + public

    def genuine(self, round_: BoundedRound) -> bool:
        public = round_.directory.hospitals.get(self.member, b"")
        statement = self.statement(round_, self.member, self.public)
        return verify(public, "member key", statement, self.signature)


@dataclass(frozen=True)
class Offer:
    """All of a hospital's first message but the masked vector, which only the server is sent.

    masked: SHA-256 of it. commitments: one for each mask's seed. ephemeral: the hospital's X25519
    public key for this round. sealed: member -> the seeds it holds, in the order of their numbers.
    """

    hospital: int
    masked: bytes
    commitments: tuple[bytes, ...]
    ephemeral: bytes
    sealed: Mapping[int, bytes]
    signature: bytes = b""

    def digest(self, round_: BoundedRound) -> bytes:
        sealed = b"".join(_number(one) + _long(self.sealed[one]) for one in sorted(self.sealed))
        parts = (_number(self.hospital), self.masked, *self.commitments, self.ephemeral, sealed)
        return commit(round_.context, b"offer", *parts)

    def genuine(self, round_: BoundedRound) -> bool:
        public = round_.directory.hospitals.get(self.hospital, b"")
        return (
            len(self.commitments) == len(round_.masks)
            and set(self.sealed) <= set(round_.committee)
            and len(self.sealed) >= round_.quorum
            and verify(public, "offer", self.digest(round_), self.signature)
        )


@dataclass(frozen=True)
class Proof:
    """A hospital's second message but for the masked proof, which only the server is sent.

    masked: SHA-256 of it. challenge: the matrix's key that the hospital was given. What the members
    open of its shares depends on all of it, so they open one point of one proof.
    """

    hospital: int
    offer: bytes
    challenge: bytes
    masked: bytes
    signature: bytes = b""

    def digest(self, round_: BoundedRound) -> bytes:
        parts = (_number(self.hospital), self.offer, self.challenge, self.masked)
        return commit(round_.context, b"proof", *parts)

    def genuine(self, round_: BoundedRound) -> bool:
        public = round_.directory.hospitals.get(self.hospital, b"")
        return verify(public, "proof", self.digest(round_), self.signature)


@dataclass(frozen=True)
class Complaint:
    """A member's word that it was given no seed of this mask that is committed to."""

    hospital: int
    mask: int
    member: int
    signature: bytes

    @classmethod
    def of(
        cls, round_: BoundedRound, hospital: int, mask: int, member: int, identity: Identity
    ) -> Complaint:
        statement = _complaint(round_, hospital, mask, member)
        return cls(hospital, mask, member, identity.sign("complaint", statement))

    def genuine(self, round_: BoundedRound) -> bool:
        """From somebody who should hold the seed: nobody else may have it published."""
        if not 0 <= self.mask < len(round_.masks) or self.member not in round_.masks[self.mask]:
            return False
        statement = _complaint(round_, self.hospital, self.mask, self.member)
        public = round_.directory.hospitals[self.member]
        return verify(public, "complaint", statement, self.signature)


def confirmation(round_: BoundedRound, accepted: tuple[int, ...]) -> bytes:
    """What members sign before they give out anything of a sum: over whom it is."""
    return commit(round_.context, b"accepted", *(_number(one) for one in accepted))


def seed_commitment(round_: BoundedRound, hospital: int, mask: int, seed: bytes) -> bytes:
    return commit(round_.context, b"seed", hospital, mask, seed)


def array_digest(vector: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(vector).view(np.uint8).data).digest()


def size_of(message: Any) -> int:
    """Bytes of what is in a message: 8 a number, no framing."""
    if isinstance(message, np.ndarray):
        return message.nbytes
    if isinstance(message, bytes):
        return len(message)
    if isinstance(message, Mapping):
        return sum(size_of(key) + size_of(value) for key, value in message.items())
    if isinstance(message, (tuple, list, set, frozenset)):
        return sum(size_of(one) for one in message)
    if is_dataclass(message):
        return sum(size_of(getattr(message, one.name)) for one in fields(message))
    return 8


def _complaint(round_: BoundedRound, hospital: int, mask: int, member: int) -> bytes:
    return round_.context + _number(hospital) + _number(mask) + _number(member)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _long(content: bytes) -> bytes:
    return _number(len(content)) + content
