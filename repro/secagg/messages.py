"""What messages hold: one class a kind, every length checked before use.

``from_bytes`` raises ``Refused`` and nothing else, and allocates no more than it was given. The
signed envelope around a payload is in ``repro.secagg.envelope``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from repro.secagg.context import fingerprints
from repro.secagg.envelope import (
    FINGERPRINTS_BYTES,
    HEADER_BYTES,
    OVERHEAD,
    Kind,
    blank,
    kind_of,
    sender_of,
    sign,
    unwrap,
    unwrap_first,
    wrap,
)
from repro.secagg.errors import Refused
from repro.secagg.field import Field
from repro.secagg.keys import PUBLIC_BYTES, SIGNATURE_BYTES, TAG_BYTES
from repro.secagg.packing import Buffer, counted, entries, exactly, pair, pairs, split
from repro.secagg.rounds import SERVER, Round
from repro.secagg.shamir import SHARE_BYTES

__all__ = [
    "ADVERTISE_BYTES",
    "HEADER_BYTES",
    "OVERHEAD",
    "SERVER",
    "SIGNATURE_BYTES",
    "Accused",
    "Advertise",
    "Buffer",
    "Confirmation",
    "Consistency",
    "Delivery",
    "Kind",
    "Masked",
    "Opened",
    "Payload",
    "Roster",
    "SealedShare",
    "Share",
    "Sharers",
    "Survivors",
    "Unmask",
    "UpheldComplaints",
    "blank",
    "frame_limit",
    "kind_of",
    "max_message_bytes",
    "phase_of",
    "sender_of",
    "sign",
    "unwrap",
    "unwrap_first",
    "wrap",
]

COMMITMENT_BYTES = 32
SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES


@dataclass(frozen=True)
class Advertise:
    """Two fresh X25519 public keys, for pairwise masks and for shares sealed for this hospital;
    and the fingerprints of what the round is bound to, so that a difference can be named."""

    mask_key: bytes
    seal_key: bytes
    fingerprints: bytes
    SIZE: ClassVar[int] = 2 * PUBLIC_BYTES + FINGERPRINTS_BYTES

    @classmethod
    def of(cls, round_: Round, mask_key: bytes, seal_key: bytes) -> Advertise:
        return cls(mask_key, seal_key, fingerprints(round_.parts))

    def to_bytes(self) -> bytes:
        return self.mask_key + self.seal_key + self.fingerprints

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Advertise:
        raw = exactly(payload, cls.SIZE)
        second, last = PUBLIC_BYTES, 2 * PUBLIC_BYTES
        return cls(raw[:second], raw[second:last], raw[last:])


ADVERTISE_BYTES = OVERHEAD + Advertise.SIZE


@dataclass(frozen=True)
class Roster:
    """The neighbours' own signed ADVERTISE messages, whole."""

    advertised: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        return counted(self.advertised)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Roster:
        return cls(tuple(entries(payload, ADVERTISE_BYTES)))


@dataclass(frozen=True)
class SealedShare:
    """One holder's shares, sealed for it, with the owner's word for all of it.

    ephemeral: X25519 public key that, with the holder's seal key, gives the sealing key; the
    owner can prove by its secret half what was sealed. The commitments let holder and server
    tell a wrong share. signature: the owner's, over all of it and its place in the round. The
    owner's entry for itself has nothing sealed: zeros but for the commitments.
    """

    holder: int
    ephemeral: bytes
    self_mask_commitment: bytes
    mask_key_commitment: bytes
    sealed: bytes
    signature: bytes
    SIZES: ClassVar[tuple[int, ...]] = (
        8,
        PUBLIC_BYTES,
        COMMITMENT_BYTES,
        COMMITMENT_BYTES,
        SEALED_BYTES,
        SIGNATURE_BYTES,
    )
    SIZE: ClassVar[int] = sum(SIZES)

    def signed(self) -> bytes:
        """What the signature is over."""
        commitments = self.self_mask_commitment + self.mask_key_commitment
        return self.holder.to_bytes(8, "little") + self.ephemeral + commitments + self.sealed

    def to_bytes(self) -> bytes:
        return self.signed() + self.signature

    @classmethod
    def from_bytes(cls, raw: Buffer) -> SealedShare:
        rest = exactly(raw, cls.SIZE)
        parts = []
        for size in cls.SIZES:
            parts.append(rest[:size])
            rest = rest[size:]
        return cls(int.from_bytes(parts[0], "little"), *parts[1:])


@dataclass(frozen=True)
class Share:
    """A hospital's shares for every holder, and a commitment to its self-mask seed."""

    seed_commitment: bytes
    shares: tuple[SealedShare, ...]

    def to_bytes(self) -> bytes:
        return self.seed_commitment + counted(share.to_bytes() for share in self.shares)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Share:
        seed, rest = split(payload, COMMITMENT_BYTES)
        shares = entries(rest, SealedShare.SIZE)
        return cls(seed, tuple(map(SealedShare.from_bytes, shares)))


@dataclass(frozen=True)
class Delivery:
    """The sealed shares for one hospital, as their owners signed them."""

    sealed: tuple[tuple[int, bytes], ...]  # (owner, SealedShare)

    def to_bytes(self) -> bytes:
        return counted(pair(owner, entry) for owner, entry in self.sealed)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Delivery:
        return cls(tuple(pairs(payload, SealedShare.SIZE)))


@dataclass(frozen=True)
class UpheldComplaints:
    """The owners whose shares were no good, each with the holder's signed complaint; or with
    zeros, where the owner's signature is no good: then nobody is asked to open anything."""

    complaints: tuple[tuple[int, bytes], ...]  # (owner, signature)

    def to_bytes(self) -> bytes:
        return counted(pair(owner, signature) for owner, signature in self.complaints)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> UpheldComplaints:
        return cls(tuple(pairs(payload, SIGNATURE_BYTES)))


@dataclass(frozen=True)
class Accused:
    """To an owner: the holders that complained of it, and their signatures."""

    complaints: tuple[tuple[int, bytes], ...]  # (holder, signature)

    def to_bytes(self) -> bytes:
        return counted(pair(holder, signature) for holder, signature in self.complaints)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Accused:
        return cls(tuple(pairs(payload, SIGNATURE_BYTES)))


@dataclass(frozen=True)
class Opened:
    """An owner's answer: the secret halves of the ephemeral keys in question."""

    secrets: tuple[tuple[int, bytes], ...]  # (holder, X25519 secret key)

    def to_bytes(self) -> bytes:
        return counted(pair(holder, secret) for holder, secret in self.secrets)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Opened:
        return cls(tuple(pairs(payload, PUBLIC_BYTES)))


@dataclass(frozen=True)
class Sharers:
    """Whose shares are good: with whom to mask (a bitmap over the roster)."""

    sharers: bytes

    def to_bytes(self) -> bytes:
        return self.sharers

    @classmethod
    def from_bytes(cls, payload: Buffer, bitmap_bytes: int) -> Sharers:
        return cls(exactly(payload, bitmap_bytes))


@dataclass(frozen=True)
class Masked:
    """A signature under who has shared (so: with whom it is masked), and the masked vector.

    vector: (dimension,) reduced field elements; a view of the message, not a copy.
    """

    signature: bytes
    vector: np.ndarray

    @classmethod
    def from_bytes(cls, payload: Buffer, field: Field, dimension: int) -> Masked:
        signature, rest = split(payload, SIGNATURE_BYTES)
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
        return self.survivors + counted(pair(one, signed) for one, signed in self.signatures)

    @classmethod
    def from_bytes(cls, payload: Buffer, bitmap_bytes: int) -> Survivors:
        survivors, rest = split(payload, bitmap_bytes)
        return cls(survivors, tuple(pairs(rest, SIGNATURE_BYTES)))


@dataclass(frozen=True)
class Consistency:
    """A hospital's signature under (who shared, who survived)."""

    signature: bytes

    def to_bytes(self) -> bytes:
        return self.signature

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Consistency:
        return cls(exactly(payload, SIGNATURE_BYTES))


@dataclass(frozen=True)
class Confirmation:
    """A quorum of hospitals' signatures under the same two sets; the request to unmask."""

    signatures: tuple[tuple[int, bytes], ...]  # (hospital, signature)

    def to_bytes(self) -> bytes:
        return counted(pair(signer, signature) for signer, signature in self.signatures)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Confirmation:
        return cls(tuple(pairs(payload, SIGNATURE_BYTES)))


@dataclass(frozen=True)
class Unmask:
    """One share of each neighbour that shared: of its self mask or of its key, never of both.

    Which of the two follows from the confirmed survivors, so no message can name one hospital
    both alive and dead.
    """

    shares: tuple[tuple[int, bytes], ...]  # (owner, share)

    def to_bytes(self) -> bytes:
        return counted(pair(owner, share) for owner, share in self.shares)

    @classmethod
    def from_bytes(cls, payload: Buffer) -> Unmask:
        return cls(tuple(pairs(payload, SHARE_BYTES)))


# In which phase a hospital answers to a message of the server's.
_ANSWERED_IN = {
    Kind.ROSTER: "share",
    Kind.DELIVERY: "verify",
    Kind.ACCUSED: "open",
    Kind.SHARERS: "masked",
    Kind.SURVIVORS: "consistency",
    Kind.CONFIRMATION: "unmask",
}


def phase_of(message: Buffer) -> str:
    """The phase in which a hospital answers to this message; Refused if it answers to none."""
    kind = kind_of(message)
    if kind not in set(_ANSWERED_IN):
        raise Refused(f"a message of kind {kind}, which no server sends")
    return _ANSWERED_IN[Kind(kind)]


@runtime_checkable
class Payload(Protocol):
    """Anything that goes into an envelope."""

    def to_bytes(self) -> bytes: ...


def max_message_bytes(round_: Round) -> int:
    """No message of an honest party in this round is longer: what a receiver may allow for."""
    holders, count = round_.neighbours + 1, len(round_.roster)
    vector = round_.dimension * round_.field.dtype.itemsize
    return OVERHEAD + max(
        SIGNATURE_BYTES + vector,
        4 + holders * ADVERTISE_BYTES,
        COMMITMENT_BYTES + 4 + holders * SealedShare.SIZE,
        4 + holders * (8 + SealedShare.SIZE),
        round_.bitmap_bytes + 4 + count * (8 + SIGNATURE_BYTES),
    )


def frame_limit(phase: str, round_: Round) -> int:
    """No honest hospital sends a longer message in this phase, in bytes."""
    holders = round_.neighbours + 1
    limits = {
        "advertise": ADVERTISE_BYTES,
        "share": OVERHEAD + COMMITMENT_BYTES + 4 + holders * SealedShare.SIZE,
        "verify": OVERHEAD + 4 + round_.neighbours * (8 + SIGNATURE_BYTES),
        "open": OVERHEAD + 4 + round_.neighbours * (8 + PUBLIC_BYTES),
        "consistency": OVERHEAD + SIGNATURE_BYTES,
        "unmask": OVERHEAD + 4 + holders * (8 + SHARE_BYTES),
    }
    return limits.get(phase, max_message_bytes(round_))
