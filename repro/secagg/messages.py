"""Messages as bytes: one signed envelope, nine payloads, every length checked before use.

Envelope, little-endian: magic ``RSAG`` · version u16 · kind u16 · sender u64 · context 32 ·
payload length u64 · payload · Ed25519 signature 64 by the sender over SHA-256 of all before it.
``from_bytes`` raises ``Refused`` and nothing else, and allocates no more than it was given.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from repro.secagg.errors import Refused
from repro.secagg.field import Field
from repro.secagg.keys import PUBLIC_BYTES, SIGNATURE_BYTES, TAG_BYTES, Identity, verify
from repro.secagg.rounds import SERVER, Round
from repro.secagg.shamir import SHARE_BYTES

Buffer = bytes | bytearray | memoryview

MAGIC, VERSION = b"RSAG", 1
_HEADER = struct.Struct("<4sHHQ32sQ")
HEADER_BYTES = _HEADER.size  # 56: a vector behind it stays aligned to 8 bytes
OVERHEAD = HEADER_BYTES + SIGNATURE_BYTES
COMMITMENT_BYTES = 32
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES


class Kind(IntEnum):
    """Which message: 1–5 go from a hospital to the server, 17–20 the other way."""

    ADVERTISE = 1
    SHARE = 2
    MASKED = 3
    CONSISTENCY = 4
    UNMASK = 5
    ROSTER = 17
    DELIVERY = 18
    SURVIVORS = 19
    CONFIRMATION = 20


def blank(kind: Kind, sender: int, round_: Round, length: int) -> tuple[bytearray, memoryview]:
    """An unsigned envelope and a view of its payload, ``length`` bytes to be filled in place."""
    message = bytearray(OVERHEAD + length)
    _HEADER.pack_into(message, 0, MAGIC, VERSION, kind, sender, round_.context, length)
    return message, memoryview(message)[HEADER_BYTES:-SIGNATURE_BYTES]


def sign(message: bytearray, identity: Identity) -> bytearray:
    """The same envelope, signed."""
    with memoryview(message) as view:
        signature = identity.sign("envelope", _digest(view[:-SIGNATURE_BYTES]))
    message[-SIGNATURE_BYTES:] = signature
    return message


def wrap(kind: Kind, sender: int, round_: Round, identity: Identity, payload: bytes) -> bytearray:
    """The signed envelope around a payload."""
    message, view = blank(kind, sender, round_, len(payload))
    view[:] = payload
    return sign(message, identity)


def unwrap(message: Buffer, kind: Kind, round_: Round) -> tuple[int, memoryview]:
    """(sender, payload) of a message of this kind and round, its signature verified."""
    sender = sender_of(message)
    view = memoryview(message)
    magic, version, got, _, context, length = _HEADER.unpack_from(view)
    if magic != MAGIC or version != VERSION:
        raise Refused("not a message of this protocol and version")
    if got != kind:
        raise Refused(f"a message of kind {got}; expected {kind.name}")
    if context != round_.context:
        raise Refused("a message of another round")
    if length != len(view) - OVERHEAD:
        raise Refused("a message whose length is not what it says")
    keys = round_.directory
    public = keys.server if sender == SERVER else keys.hospitals.get(sender)
    if public is None or (sender == SERVER) != (kind >= Kind.ROSTER):
        raise Refused(f"a message from stranger {sender}")
    signature = bytes(view[-SIGNATURE_BYTES:])
    if not verify(public, "envelope", _digest(view[:-SIGNATURE_BYTES]), signature):
        raise Refused("a message whose signature is not its sender's")
    return sender, view[HEADER_BYTES:-SIGNATURE_BYTES]


def sender_of(message: Buffer) -> int:
    """The sender a message claims; Refused if it is too short to hold one."""
    if len(message) < OVERHEAD:
        raise Refused(f"a message of {len(message)} bytes")
    return int(_HEADER.unpack_from(message)[3])


def _digest(signed: memoryview) -> bytes:
    return hashlib.sha256(signed).digest()


@dataclass(frozen=True)
class Advertise:
    """Two fresh X25519 public keys: for pairwise masks, and for sealing shares."""

    mask_key: bytes
    seal_key: bytes
    SIZE = 2 * PUBLIC_BYTES

    def to_bytes(self) -> bytes:
        return self.mask_key + self.seal_key

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Advertise:
        raw = _exactly(payload, cls.SIZE)
        return cls(raw[:PUBLIC_BYTES], raw[PUBLIC_BYTES:])


ADVERTISE_BYTES = OVERHEAD + Advertise.SIZE


@dataclass(frozen=True)
class Roster:
    """The neighbours' own signed ADVERTISE messages, whole."""

    advertised: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        return _counted(self.advertised)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Roster:
        return cls(tuple(_entries(payload, ADVERTISE_BYTES)))


@dataclass(frozen=True)
class SealedShare:
    """One holder's shares, sealed for it (zeros for the owner's own), and commitments to them.

    The commitments let the server tell a holder's wrong share from the right one.
    """

    holder: int
    self_mask_commitment: bytes
    mask_key_commitment: bytes
    sealed: bytes
    SIZE = 8 + 2 * COMMITMENT_BYTES + SEALED_BYTES

    def to_bytes(self) -> bytes:
        commitments = self.self_mask_commitment + self.mask_key_commitment
        return self.holder.to_bytes(8, "little") + commitments + self.sealed

    @classmethod
    def from_bytes(cls, raw: Buffer) -> SealedShare:
        entry = _exactly(raw, cls.SIZE)
        first, second, sealed = 8, 8 + COMMITMENT_BYTES, 8 + 2 * COMMITMENT_BYTES
        holder = int.from_bytes(entry[:first], "little")
        return cls(holder, entry[first:second], entry[second:sealed], entry[sealed:])


@dataclass(frozen=True)
class Share:
    """A hospital's shares for every holder, and a commitment to its self-mask seed."""

    seed_commitment: bytes
    shares: tuple[SealedShare, ...]

    def to_bytes(self) -> bytes:
        return self.seed_commitment + _counted(share.to_bytes() for share in self.shares)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Share:
        seed, rest = _split(payload, COMMITMENT_BYTES)
        entries = _entries(rest, SealedShare.SIZE)
        return cls(seed, tuple(SealedShare.from_bytes(entry) for entry in entries))


@dataclass(frozen=True)
class Delivery:
    """Who has shared (a bitmap over the roster), and the sealed shares for one hospital."""

    sharers: bytes
    sealed: tuple[tuple[int, bytes], ...]  # (owner, ciphertext)

    def to_bytes(self) -> bytes:
        return self.sharers + _counted(_pair(owner, text) for owner, text in self.sealed)

    @classmethod
    def from_bytes(cls, payload: Buffer, bitmap_bytes: int) -> Delivery:
        sharers, rest = _split(payload, bitmap_bytes)
        return cls(sharers, tuple(_pairs(rest, SEALED_BYTES)))


@dataclass(frozen=True)
class Masked:
    """A signature under who has shared (so: with whom it is masked), and the masked vector.

    vector: (dimension,) reduced field elements; a view of the message, not a copy.
    """

    signature: bytes
    vector: np.ndarray

    @classmethod
    def from_bytes(cls, payload: Buffer, field: Field, dimension: int) -> Masked:
        signature, rest = _split(payload, SIGNATURE_BYTES)
        if len(rest) != dimension * field.dtype.itemsize:
            raise Refused(f"a masked input of {len(rest)} bytes; expected {dimension} elements")
        vector = np.frombuffer(rest, dtype=field.dtype)
        field.check(vector)
        return cls(signature, vector)

    @classmethod
    def room(cls, payload: memoryview, field: Field) -> Masked:
        """The vector of a payload yet to be filled, as an array that writes through."""
        return cls(b"", np.frombuffer(payload[SIGNATURE_BYTES:], dtype=field.dtype))


@dataclass(frozen=True)
class Survivors:
    """Whose masked input is in the sum (a bitmap over the roster), and what each surviving
    neighbour has signed about who shared."""

    survivors: bytes
    signatures: tuple[tuple[int, bytes], ...]  # (neighbour, signature)

    def to_bytes(self) -> bytes:
        return self.survivors + _counted(_pair(one, signed) for one, signed in self.signatures)

    @classmethod
    def from_bytes(cls, payload: Buffer, bitmap_bytes: int) -> Survivors:
        survivors, rest = _split(payload, bitmap_bytes)
        return cls(survivors, tuple(_pairs(rest, SIGNATURE_BYTES)))


@dataclass(frozen=True)
class Consistency:
    """A hospital's signature under (who shared, who survived)."""

    signature: bytes

    def to_bytes(self) -> bytes:
        return self.signature

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Consistency:
        return cls(_exactly(payload, SIGNATURE_BYTES))


@dataclass(frozen=True)
class Confirmation:
    """A quorum of hospitals' signatures under the same two sets; the request to unmask."""

    signatures: tuple[tuple[int, bytes], ...]  # (hospital, signature)

    def to_bytes(self) -> bytes:
        return _counted(_pair(signer, signature) for signer, signature in self.signatures)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Confirmation:
        return cls(tuple(_pairs(payload, SIGNATURE_BYTES)))


@dataclass(frozen=True)
class Unmask:
    """One share of each neighbour that shared: of its self mask or of its key, never of both.

    Which of the two follows from the confirmed survivors, so no message can name one hospital
    both alive and dead.
    """

    shares: tuple[tuple[int, bytes], ...]  # (owner, share)

    def to_bytes(self) -> bytes:
        return _counted(_pair(owner, share) for owner, share in self.shares)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Unmask:
        return cls(tuple(_pairs(payload, SHARE_BYTES)))


def max_message_bytes(round_: Round) -> int:
    """No message of an honest party in this round is longer: what a receiver may allow for."""
    holders, count = round_.neighbours + 1, len(round_.roster)
    vector = round_.dimension * round_.field.dtype.itemsize
    return OVERHEAD + max(
        SIGNATURE_BYTES + vector,
        4 + holders * ADVERTISE_BYTES,
        COMMITMENT_BYTES + 4 + holders * SealedShare.SIZE,
        round_.bitmap_bytes + 4 + holders * (8 + SEALED_BYTES),
        round_.bitmap_bytes + 4 + count * (8 + SIGNATURE_BYTES),
    )


def _exactly(payload: Buffer, size: int) -> bytes:
    if len(payload) != size:
        raise Refused(f"{len(payload)} bytes where {size} belong")
    return bytes(payload)


def _split(payload: Buffer, size: int) -> tuple[bytes, memoryview]:
    if len(payload) < size:
        raise Refused(f"{len(payload)} bytes where at least {size} belong")
    return bytes(payload[:size]), memoryview(payload)[size:]


def _pair(hospital: int, value: bytes) -> bytes:
    return hospital.to_bytes(8, "little") + value


def _counted(entries: Iterable[bytes]) -> bytes:
    listed = list(entries)
    return len(listed).to_bytes(4, "little") + b"".join(listed)


def _entries(payload: Buffer, size: int) -> list[bytes]:
    """Entries of ``size`` bytes each behind their count, which has to fit the payload exactly."""
    count_bytes, rest = _split(payload, 4)
    if len(rest) != int.from_bytes(count_bytes, "little") * size:
        raise Refused("a list whose length is not what it says")
    return [bytes(rest[start : start + size]) for start in range(0, len(rest), size)]


def _pairs(payload: Buffer, size: int) -> list[tuple[int, bytes]]:
    entries = _entries(payload, 8 + size)
    return [(int.from_bytes(entry[:8], "little"), entry[8:]) for entry in entries]
