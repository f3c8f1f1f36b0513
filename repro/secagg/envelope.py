"""The signed envelope around every message: who, which kind, which round; lengths checked first.

Little-endian: magic ``RSAG`` · version u16 · kind u16 · sender u64 · context 32 · payload length
u64 · payload · Ed25519 signature 64 by the sender over SHA-256 of all before it. Reading one
raises ``Refused`` and nothing else, and allocates no more than it was given.
"""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum

from repro.secagg.context import FINGERPRINT_BYTES, PARTS, differences, fingerprints
from repro.secagg.errors import Refused
from repro.secagg.keys import SIGNATURE_BYTES, Identity, verify
from repro.secagg.packing import Buffer
from repro.secagg.rounds import SERVER, BaseRound

MAGIC, VERSION = b"RSAG", 2
_HEADER = struct.Struct("<4sHHQ32sQ")
HEADER_BYTES = _HEADER.size  # 56: a vector behind it stays aligned to 8 bytes
OVERHEAD = HEADER_BYTES + SIGNATURE_BYTES
FINGERPRINTS_BYTES = len(PARTS) * FINGERPRINT_BYTES


FROM_SERVER = 16  # the bit of a kind that is set in what the server sends


class Kind(IntEnum):
    """Which message. Those of bounded rounds: ``repro.secagg.bounded.wire``."""

    ADVERTISE = 1
    SHARE = 2
    VERIFY = 3
    OPEN = 4
    MASKED = 5
    CONSISTENCY = 6
    UNMASK = 7
    ROSTER = 17
    DELIVERY = 18
    ACCUSED = 19
    SHARERS = 20
    SURVIVORS = 21
    CONFIRMATION = 22


def blank(
    kind: IntEnum, sender: int, round_: BaseRound, length: int
) -> tuple[bytearray, memoryview]:
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


def wrap(
    kind: IntEnum, sender: int, round_: BaseRound, identity: Identity, payload: bytes
) -> bytearray:
    """The signed envelope around a payload."""
    message, view = blank(kind, sender, round_, len(payload))
    view[:] = payload
    return sign(message, identity)


def unwrap(message: Buffer, kind: IntEnum, round_: BaseRound) -> tuple[int, memoryview]:
    """(sender, payload) of a message of this kind and round, its signature verified."""
    return _unwrap(message, kind, round_, round_.context)


def unwrap_first(message: Buffer, kind: IntEnum, round_: BaseRound) -> tuple[int, memoryview]:
    """``unwrap`` of a hospital's first message, which says in what it differs if it is of another
    round.

    The fingerprints behind that are part of the sender's signed payload (its last bytes).
    """
    sender, payload = _unwrap(message, kind, round_, None)
    if _HEADER.unpack_from(message)[4] != round_.context:
        others = differences(fingerprints(round_.parts), bytes(payload[-FINGERPRINTS_BYTES:]))
        raise Refused(f"hospital {sender} holds another {', '.join(others) or 'context'}")
    return sender, payload


def _unwrap(
    message: Buffer, kind: IntEnum, round_: BaseRound, context: bytes | None
) -> tuple[int, memoryview]:
    sender = sender_of(message)
    view = memoryview(message)
    magic, version, got, _, of, length = _HEADER.unpack_from(view)
    if magic != MAGIC or version != VERSION:
        raise Refused("not a message of this protocol and version")
    if got != kind:
        raise Refused(f"a message of kind {got}; expected {kind.name}")
    if context is not None and of != context:
        raise Refused("a message of another round, or of one with other settings")
    if length != len(view) - OVERHEAD:
        raise Refused("a message whose length is not what it says")
    keys = round_.directory
    public = keys.server if sender == SERVER else keys.hospitals.get(sender)
    if public is None or (sender == SERVER) != bool(kind & FROM_SERVER):
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


def kind_of(message: Buffer) -> int:
    """The kind a message claims; Refused if it is too short to hold one."""
    if len(message) < OVERHEAD:
        raise Refused(f"a message of {len(message)} bytes")
    return int(_HEADER.unpack_from(message)[2])


def _digest(signed: memoryview) -> bytes:
    return hashlib.sha256(signed).digest()
