"""What parties of a bounded round say to each other; as bytes: ``repro.secagg.bounded.wire``.

``genuine`` says whether a message has the shape that its phase asks for and its sender's signature;
nothing of one that is not is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from repro.secagg.bounded.setting import BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.keys import (
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    TAG_BYTES,
    Identity,
    check_public,
    commit,
    verify,
)

SEED_BYTES = 32
DIGEST_BYTES = 32


@dataclass(frozen=True)
class MemberKey:
    """A member's fresh X25519 public key and the commitment to its nonce, signed."""

    member: int
    public: bytes
    nonce: bytes
    signature: bytes = b""

    def statement(self, round_: BoundedRound) -> bytes:
        return commit(round_.context, b"member", _number(self.member), self.public, self.nonce)

    def genuine(self, round_: BoundedRound) -> bool:
        if not (
            _is_one_of(self.member, round_.committee)
            and _are_bytes(PUBLIC_BYTES, self.public)
            and _are_bytes(DIGEST_BYTES, self.nonce)
        ):
            return False
        try:
            check_public(self.public)
        except Refused:  # one that no secret can be agreed on with
            return False
        return _signed(round_, self.member, "member key", self.statement(round_), self.signature)


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
        sealed = b"".join(_number(one) + self.sealed[one] for one in sorted(self.sealed))
        parts = (_number(self.hospital), self.masked, *self.commitments, self.ephemeral, sealed)
        return commit(round_.context, b"offer", *parts)

    def genuine(self, round_: BoundedRound) -> bool:
        return (
            _is_one_of(self.hospital, round_.roster)
            and _are_bytes(DIGEST_BYTES, self.masked, *self.commitments)
            and len(self.commitments) == len(round_.masks)
            and _are_bytes(PUBLIC_BYTES, self.ephemeral)
            and all(_is_one_of(one, round_.committee) for one in self.sealed)
            and all(
                _are_bytes(SEED_BYTES * len(round_.held_by(one)) + TAG_BYTES, box)
                for one, box in self.sealed.items()
            )
            and _signed(round_, self.hospital, "offer", self.digest(round_), self.signature)
        )


@dataclass(frozen=True)
class Proof:
    """A hospital's second message but for the masked proof, which only the server is sent.

    masked: SHA-256 of it. challenge: the matrix's key that the hospital has worked out. What the
    members open of its shares depends on all of it, so they open the points of one proof.
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
        return (
            _is_one_of(self.hospital, round_.roster)
            and _are_bytes(DIGEST_BYTES, self.offer, self.challenge, self.masked)
            and _signed(round_, self.hospital, "proof", self.digest(round_), self.signature)
        )


@dataclass(frozen=True)
class Complaint:
    """A member's word that an offer held no seed for it that is committed to.

    key: the member's public key of this round, which the seeds had to be sealed for; offer: the
    digest of what it complains about. Without them an honest word about something else would do.
    """

    hospital: int
    mask: int
    member: int
    key: bytes
    offer: bytes
    signature: bytes = b""

    def statement(self, round_: BoundedRound) -> bytes:
        numbers = (_number(one) for one in (self.hospital, self.mask, self.member))
        return commit(round_.context, b"complaint", *numbers, self.key, self.offer)

    def signed(self, round_: BoundedRound, identity: Identity) -> Complaint:
        parts = (self.hospital, self.mask, self.member, self.key, self.offer)
        return Complaint(*parts, identity.sign("complaint", self.statement(round_)))

    def concerns(self, round_: BoundedRound, offer: Offer, keys: Mapping[int, MemberKey]) -> bool:
        """Whether a member that seeds of this very offer were sealed for, under its key in
        ``keys``, has made it."""
        return (
            self.genuine(round_)
            and self.hospital == offer.hospital
            and self.offer == offer.digest(round_)
            and self.member in keys
            and self.key == keys[self.member].public
        )

    def genuine(self, round_: BoundedRound) -> bool:
        """From somebody who should hold the seed: nobody else may have it published."""
        return (
            _is_one_of(self.hospital, round_.roster)
            and _is_one_of(self.mask, range(len(round_.masks)))
            and _is_one_of(self.member, round_.masks[self.mask])
            and _are_bytes(PUBLIC_BYTES, self.key)
            and _are_bytes(DIGEST_BYTES, self.offer)
            and _signed(round_, self.member, "complaint", self.statement(round_), self.signature)
        )


def nonce_commitment(round_: BoundedRound, member: int, nonce: bytes) -> bytes:
    return commit(round_.context, b"nonce", _number(member), nonce)


def fits_nonce(round_: BoundedRound, key: MemberKey, nonce: Any) -> bool:
    return _are_bytes(SEED_BYTES, nonce) and (
        nonce_commitment(round_, key.member, nonce) == key.nonce
    )


def challenge_from(
    round_: BoundedRound, keys: Collection[MemberKey], nonces: Mapping[int, bytes]
) -> bytes:
    """The key of the projections' matrix, of the nonces of 2·t + 1 or more members.

    They were committed to before any vector was sent and are given out after, so neither a
    hospital nor the server can know the matrix while vectors may still be chosen, nor t members
    choose it. Raises Refused for too few nonces, or one that is not as it was committed to.
    """
    known = {key.member: key for key in keys}
    for member, nonce in nonces.items():
        if member not in known or not fits_nonce(round_, known[member], nonce):
            raise Refused("a nonce that its member has not committed to")
    if len(nonces) < round_.quorum:
        raise Refused(f"nonces of {len(nonces)} members; a quorum is {round_.quorum}")
    drawn = (_number(member) + nonces[member] for member in sorted(nonces))
    return commit(round_.context, b"challenge", *drawn)


def confirmation(round_: BoundedRound, accepted: tuple[int, ...]) -> bytes:
    """What members sign before they give out anything of a sum: over whom it is."""
    return commit(round_.context, b"accepted", *(_number(one) for one in accepted))


def fits_commitment(round_: BoundedRound, offer: Offer, mask: int, seed: Any) -> bool:
    """Whether it is a seed, and the one that the offer commits to."""
    return _are_bytes(SEED_BYTES, seed) and (
        seed_commitment(round_, offer.hospital, mask, seed) == offer.commitments[mask]
    )


def seed_commitment(round_: BoundedRound, hospital: int, mask: int, seed: bytes) -> bytes:
    return commit(round_.context, b"seed", _number(hospital), _number(mask), seed)


def array_digest(vector: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(vector).view(np.uint8).data).digest()


def _signed(
    round_: BoundedRound, party: int, purpose: str, statement: bytes, signature: Any
) -> bool:
    public = round_.directory.hospitals[party]
    return _are_bytes(SIGNATURE_BYTES, signature) and verify(public, purpose, statement, signature)


def _is_one_of(value: Any, among: Collection[int]) -> bool:
    return type(value) is int and value in among


def _are_bytes(size: int, *values: Any) -> bool:
    return all(isinstance(value, bytes) and len(value) == size for value in values)


def _number(value: int) -> bytes:
    return value.to_bytes(8, "little")
