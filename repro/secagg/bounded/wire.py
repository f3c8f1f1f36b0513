"""The messages of a bounded round as bytes: kinds, payloads, and how long an honest one can be.

Each goes in the signed envelope of ``repro.secagg.envelope``, bound to its round. Reading raises
``Refused`` and nothing else, and allocates no more than it was given. Numbers are 8 bytes, little
endian; vectors are the field's elements, 4 bytes each, and are not copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from repro.secagg.bounded.bound import FIELD
from repro.secagg.bounded.circuit import Circuit
from repro.secagg.bounded.member import Answers
from repro.secagg.bounded.messages import (
    DIGEST_BYTES,
    SEED_BYTES,
    Complaint,
    MemberKey,
    Offer,
    Proof,
)
from repro.secagg.bounded.setting import PHASES, BoundedRound
from repro.secagg.envelope import FINGERPRINTS_BYTES, OVERHEAD, kind_of
from repro.secagg.errors import Refused
from repro.secagg.keys import PUBLIC_BYTES, SIGNATURE_BYTES, TAG_BYTES
from repro.secagg.packing import Buffer, blobs, counted, each_blob, entries, pair, pairs, split

Fixed = TypeVar("Fixed", MemberKey, Proof, Complaint)
_NUMBER = 8
_SIZES: dict[type, tuple[int, ...]] = {
    MemberKey: (_NUMBER, PUBLIC_BYTES, DIGEST_BYTES, SIGNATURE_BYTES),
    Proof: (_NUMBER, DIGEST_BYTES, DIGEST_BYTES, DIGEST_BYTES, SIGNATURE_BYTES),
    Complaint: (_NUMBER, _NUMBER, _NUMBER, PUBLIC_BYTES, DIGEST_BYTES, SIGNATURE_BYTES),
}
SIZE = {kind: sum(sizes) for kind, sizes in _SIZES.items()}
NOTHING, END = 2**64 - 1, 2**64 - 2  # WANTED: no mask this time; no more messages
_ELEMENT = FIELD.dtype.itemsize


class BoundedKind(IntEnum):
    """Which message; bit ``FROM_SERVER`` is set in the server's."""

    ADVERTISE = 33
    MASKED = 34
    COMPLAINTS = 35
    SEEDS = 36
    NONCE = 37
    PROOF = 38
    ANSWERS = 39
    CONFIRM = 40
    MASKS = 41
    SUM = 42
    KEYS = 49
    OFFERS = 50
    COMPLAINED = 51
    PUBLISHED = 52
    NONCES = 53
    PROOFS = 54
    ACCEPTED = 55
    CONFIRMED = 56
    WANTED = 57


# Phase -> what the server sends that begins it, and what hospitals or members answer.
EXCHANGES = {
    "masked": (BoundedKind.KEYS, BoundedKind.MASKED),
    "complaints": (BoundedKind.OFFERS, BoundedKind.COMPLAINTS),
    "seeds": (BoundedKind.COMPLAINED, BoundedKind.SEEDS),
    "nonces": (BoundedKind.PUBLISHED, BoundedKind.NONCE),
    "proof": (BoundedKind.NONCES, BoundedKind.PROOF),
    "answers": (BoundedKind.PROOFS, BoundedKind.ANSWERS),
    "confirm": (BoundedKind.ACCEPTED, BoundedKind.CONFIRM),
    "masks": (BoundedKind.CONFIRMED, BoundedKind.MASKS),
    "sums": (BoundedKind.WANTED, BoundedKind.SUM),
}
ANSWER = {"advertise": BoundedKind.ADVERTISE} | {
    phase: kind for phase, (_, kind) in EXCHANGES.items()
}
_ANSWERED_IN = {int(kind): phase for phase, (kind, _) in EXCHANGES.items()}


def phase_of(message: Buffer) -> str:
    """The phase in which a hospital answers to this message; Refused if it answers to none."""
    kind = kind_of(message)
    if kind not in _ANSWERED_IN:
        raise Refused(f"a message of kind {kind}, which no server of a bounded round sends")
    return _ANSWERED_IN[kind]


def packed(one: MemberKey | Proof | Complaint) -> bytes:
    """What has a fixed size: its fields, in their order."""
    fields = (getattr(one, name) for name in type(one).__dataclass_fields__)
    return b"".join(_number(value) if isinstance(value, int) else value for value in fields)


def unpacked(kind: type[Fixed], raw: Buffer) -> Fixed:
    values: list[Any] = []
    rest: Buffer = raw
    for size in _SIZES[kind]:
        value, rest = split(rest, size)
        values.append(int.from_bytes(value, "little") if size == _NUMBER else value)
    if len(rest):
        raise Refused(f"{len(rest)} bytes too many")
    return kind(*values)


def packed_list(each: Iterable[MemberKey | Proof | Complaint]) -> bytes:
    return counted(map(packed, each))


def unpacked_list(kind: type[Fixed], payload: Buffer) -> list[Fixed]:
    return [unpacked(kind, raw) for raw in entries(payload, SIZE[kind])]


def packed_offer(offer: Offer) -> bytes:
    """Hospital · digest of the masked vector · ephemeral key · signature · commitments, counted ·
    seeds sealed for members, counted."""
    head = _number(offer.hospital) + offer.masked + offer.ephemeral + offer.signature
    sealed = packed_pairs(dict(sorted(offer.sealed.items())))
    return head + blobs([counted(offer.commitments), sealed])


def unpacked_offer(round_: BoundedRound, raw: Buffer) -> Offer:
    hospital, rest = split(raw, _NUMBER)
    masked, rest = split(rest, DIGEST_BYTES)
    ephemeral, rest = split(rest, PUBLIC_BYTES)
    signature, rest = split(rest, SIGNATURE_BYTES)
    lists = each_blob(rest)
    if len(lists) != 2:
        raise Refused("an offer of other parts")
    return Offer(
        int.from_bytes(hospital, "little"),
        masked,
        tuple(entries(lists[0], DIGEST_BYTES)),
        ephemeral,
        unpacked_pairs(lists[1], _box_bytes(round_)),
        signature,
    )


def packed_pairs(values: Mapping[int, bytes]) -> bytes:
    return counted(pair(one, value) for one, value in values.items())


def unpacked_pairs(payload: Buffer, size: int) -> dict[int, bytes]:
    """Number -> its bytes. Refused where one comes twice."""
    found = pairs(payload, size)
    if len(dict(found)) != len(found):
        raise Refused("one number twice in a list")
    return dict(found)


def packed_seeds(published: Mapping[int, Mapping[int, bytes]]) -> bytes:
    """Hospital -> mask -> seed."""
    return counted(
        pair(hospital, pair(mask, seed))
        for hospital, seeds in published.items()
        for mask, seed in seeds.items()
    )


def unpacked_seeds(payload: Buffer) -> dict[int, dict[int, bytes]]:
    found: dict[int, dict[int, bytes]] = {}
    for hospital, rest in pairs(payload, _NUMBER + SEED_BYTES):
        mask = int.from_bytes(rest[:_NUMBER], "little")
        found.setdefault(hospital, {})[mask] = rest[_NUMBER:]
    return found


def packed_answers(answers: Mapping[int, Answers]) -> bytes:
    """Hospital -> what the masks' shares answer, in the order of their numbers."""
    return blobs(
        pair(hospital, b"".join(each[mask].tobytes() for mask in sorted(each)))
        for hospital, each in answers.items()
    )


def unpacked_answers(round_: BoundedRound, member: int, payload: Buffer) -> dict[int, Answers]:
    size, held = Circuit(round_.bound).answer_size, round_.held_by(member)
    found: dict[int, Answers] = {}
    for raw in each_blob(payload):
        hospital, rest = split(raw, _NUMBER)
        values = elements(rest, len(held) * size).reshape(len(held), size)
        found[int.from_bytes(hospital, "little")] = dict(zip(held, values, strict=True))
    return found


def packed_numbers(numbers: Collection[int]) -> bytes:
    return counted(map(_number, numbers))


def unpacked_numbers(payload: Buffer) -> tuple[int, ...]:
    return tuple(int.from_bytes(raw, "little") for raw in entries(payload, _NUMBER))


def elements(payload: Buffer, count: int) -> np.ndarray:
    """(count,) of the field's dtype, whatever they are: who uses them checks that they are below
    its modulus."""
    if len(payload) != count * _ELEMENT:
        raise Refused(f"{len(payload)} bytes where {count} field elements belong")
    return np.frombuffer(payload, FIELD.dtype)


def _number(value: int) -> bytes:
    return value.to_bytes(_NUMBER, "little")


def _held(round_: BoundedRound) -> int:
    """Masks whose seeds a member holds: as many for each."""
    return len(round_.held_by(round_.committee[0]))


def _box_bytes(round_: BoundedRound) -> int:
    """A member's seeds, sealed."""
    return SEED_BYTES * _held(round_) + TAG_BYTES


def _offer_bytes(round_: BoundedRound) -> int:
    fixed = _NUMBER + DIGEST_BYTES + PUBLIC_BYTES + SIGNATURE_BYTES
    lists = DIGEST_BYTES * len(round_.masks), (_NUMBER + _box_bytes(round_)) * len(round_.committee)
    return fixed + sum(8 + size for size in lists)


def frame_limit(phase: str, round_: BoundedRound) -> int:
    """No honest hospital sends a longer message in this phase, in bytes."""
    circuit, held = Circuit(round_.bound), _held(round_)
    many = len(round_.roster)
    limits = {
        "advertise": SIZE[MemberKey] + FINGERPRINTS_BYTES,
        "masked": 4 + _offer_bytes(round_) + 4 + _ELEMENT * round_.length,
        "complaints": 4 + many * held * SIZE[Complaint],
        "seeds": 4 + len(round_.masks) * (_NUMBER + SEED_BYTES),
        "nonces": SEED_BYTES,
        "proof": SIZE[Proof] + _ELEMENT * circuit.size,
        "answers": many * (4 + _NUMBER + held * circuit.answer_size * _ELEMENT),
        "confirm": SIGNATURE_BYTES,
        "masks": 4 + held * (_NUMBER + DIGEST_BYTES),
        "sums": _ELEMENT * round_.length,
    }
    return OVERHEAD + limits[phase]


def longest(round_: BoundedRound) -> int:
    """No honest party sends a longer message in this round."""
    hospitals = max(frame_limit(phase, round_) for phase in PHASES)
    many, members = len(round_.roster), len(round_.committee)
    server = OVERHEAD + max(
        4 + members * SIZE[MemberKey],
        many * (4 + _offer_bytes(round_)),
        4 + members * _held(round_) * SIZE[Complaint],
        4 + many * len(round_.masks) * (2 * _NUMBER + SEED_BYTES),
        12 + members * (_NUMBER + SEED_BYTES) + many * SIZE[Proof],
        4 + many * _NUMBER,
        4 + members * (_NUMBER + SIGNATURE_BYTES),
    )
    return max(hospitals, server)
