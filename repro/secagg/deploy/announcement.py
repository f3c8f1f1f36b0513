"""What the server says to whoever connects: which round is open, and what it is about.

magic ``RSAN`` · version u16 · number u64 · session 32 · directory's digest 32 ·
application length u64 · application · Ed25519 signature 64, little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from repro.secagg.errors import Refused
from repro.secagg.keys import SIGNATURE_BYTES, Identity, verify
from repro.secagg.messages import Buffer

_HEADER = struct.Struct("<4sHQ32s32sQ")
_MAGIC, _VERSION, _PURPOSE = b"RSAN", 1, "announcement"
OVERHEAD = _HEADER.size + SIGNATURE_BYTES
APPLICATION_ROOM = 1 << 20  # beside a model of 8 bytes a value


@dataclass(frozen=True)
class Announcement:
    """Round ``number`` of ``session`` under the directory of ``digest`` is open.

    application: bytes for the hospitals, such as the global model.
    """

    number: int
    session: bytes
    digest: bytes
    application: bytes = b""

    def to_bytes(self, server: Identity) -> bytes:
        header = _HEADER.pack(
            _MAGIC, _VERSION, self.number, self.session, self.digest, len(self.application)
        )
        body = header + self.application
        return body + server.sign(_PURPOSE, body)

    @classmethod
    def from_bytes(cls, raw: Buffer, server: bytes) -> Announcement:
        """Verified with the server's public key. Raises Refused and nothing else."""
        content = bytes(raw)
        if len(content) < OVERHEAD:
            raise Refused(f"an announcement of {len(content)} bytes")
        magic, version, number, session, digest, length = _HEADER.unpack_from(content)
        body, signature = content[:-SIGNATURE_BYTES], content[-SIGNATURE_BYTES:]
        if magic != _MAGIC or version != _VERSION or length != len(content) - OVERHEAD:
            raise Refused("not an announcement of this protocol and version")
        if not verify(server, _PURPOSE, body, signature):
            raise Refused("an announcement that the directory's server has not signed")
        return cls(number, session, digest, body[_HEADER.size :])


def is_announcement(raw: Buffer) -> bool:
    """Whether this may be an announcement rather than a message of a round."""
    return bytes(raw[:4]) == _MAGIC


def max_announcement_bytes(dimension: int) -> int:
    """What a hospital allows for: a model of ``dimension`` values and something beside it."""
    return OVERHEAD + APPLICATION_ROOM + 8 * dimension
