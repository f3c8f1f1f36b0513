"""What the server and a hospital say to each other before a round's own messages.

The server tells whoever connects which round is open and what it is about (ANNOUNCEMENT). A
hospital answers with who it is (HELLO), signed over a challenge that no other connection has;
only then is it sent the application's bytes (WELCOME), such as the model, and only if it has not
got them yet: one download serves every connection and every round that is about the same bytes.

ANNOUNCEMENT: magic ``RSAN`` · version u16 · number u64 · session 32 · directory's digest 32 ·
application's SHA-256 32 · its length u64 · seconds u32 · Ed25519 signature 64, little-endian.
HELLO: magic ``RSHI`` · hospital u64 · state 16 · last round u64 · wants u8 · signature 64.
WELCOME: one byte ``+`` and, if wanted, the application.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from repro.secagg.errors import Refused
from repro.secagg.keys import SIGNATURE_BYTES, Identity, verify
from repro.secagg.messages import Buffer

_HEADER = struct.Struct("<4sHQ32s32s32sQI")
_MAGIC, _VERSION, _PURPOSE = b"RSAN", 2, "announcement"
ANNOUNCEMENT_BYTES = _HEADER.size + SIGNATURE_BYTES
_HELLO = struct.Struct("<4sQ16sQB")
_HELLO_MAGIC, _HELLO_PURPOSE = b"RSHI", "hello"
HELLO_BYTES = _HELLO.size + SIGNATURE_BYTES
STATE_BYTES = 16
WELCOME = b"+"
APPLICATION_ROOM = 1 << 20  # beside a model of 8 bytes a value


@dataclass(frozen=True)
class Announcement:
    """Round ``number`` of ``session`` under the directory of ``digest`` is open.

    Number 0: no round is open and none will be; the application is what it has come to.
    application_digest, length: of the bytes for the hospitals, such as the global model;
    application: these bytes, once they are there (``filled``). seconds: how long the server may
    take from one message to the next.
    """

    number: int
    session: bytes
    digest: bytes
    application_digest: bytes = hashlib.sha256(b"").digest()
    length: int = 0
    seconds: int = 0
    application: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def of(
        cls, number: int, session: bytes, digest: bytes, application: bytes = b"", seconds: int = 0
    ) -> Announcement:
        """About these bytes."""
        named = hashlib.sha256(application).digest()
        return cls(number, session, digest, named, len(application), seconds, application)

    def filled(self, application: bytes) -> Announcement:
        """With the bytes it is about. Refused for any others."""
        if hashlib.sha256(application).digest() != self.application_digest:
            raise Refused("other bytes than those that the server has announced")
        return replace(self, application=application)

    def to_bytes(self, server: Identity) -> bytes:
        body = _HEADER.pack(
            _MAGIC,
            _VERSION,
            self.number,
            self.session,
            self.digest,
            self.application_digest,
            self.length,
            self.seconds,
        )
        return body + server.sign(_PURPOSE, body)

    @classmethod
    def from_bytes(cls, raw: Buffer, server: bytes) -> Announcement:
        """Verified with the server's public key. Raises Refused and nothing else."""
        content = bytes(raw)
        if len(content) != ANNOUNCEMENT_BYTES:
            raise Refused(f"an announcement of {len(content)} bytes")
        body, signature = content[:-SIGNATURE_BYTES], content[-SIGNATURE_BYTES:]
        magic, version, *rest = _HEADER.unpack(body)
        if magic != _MAGIC or version != _VERSION:
            raise Refused("not an announcement of this protocol and version")
        if not verify(server, _PURPOSE, body, signature):
            raise Refused("an announcement that the directory's server has not signed")
        return cls(*rest)


@dataclass(frozen=True)
class Hello:
    """Who connects. state: names the state folder that its key goes with; last: the round it
    began last in the session, 0 for none; wants: whether it has yet to get the application."""

    hospital: int
    state: bytes
    last: int
    wants: bool

    def to_bytes(self, identity: Identity, announced: Buffer, challenge: bytes) -> bytes:
        """Signed for this connection to this server's round, and no other."""
        body = _HELLO.pack(_HELLO_MAGIC, self.hospital, self.state, self.last, self.wants)
        return body + identity.sign(_HELLO_PURPOSE, _bound(body, announced, challenge))

    @classmethod
    def from_bytes(
        cls, raw: Buffer, hospitals: Mapping[int, bytes], announced: Buffer, challenge: bytes
    ) -> Hello:
        """Verified. hospitals: id -> public key. Raises Refused and nothing else."""
        content = bytes(raw)
        if len(content) != HELLO_BYTES or content[:4] != _HELLO_MAGIC:
            raise Refused("it does not say who it is")
        body, signature = content[:-SIGNATURE_BYTES], content[-SIGNATURE_BYTES:]
        _, hospital, state, last, wants = _HELLO.unpack(body)
        if hospital not in hospitals:
            raise Refused(f"it says that it is hospital {hospital}, which the directory has not")
        signed = _bound(body, announced, challenge)
        if not verify(hospitals[hospital], _HELLO_PURPOSE, signed, signature):
            raise Refused(f"it is not hospital {hospital}, as it says")
        return cls(hospital, state, last, bool(wants))


def _bound(body: bytes, announced: Buffer, challenge: bytes) -> bytes:
    return hashlib.sha256(bytes(announced)).digest() + challenge + body


def is_announcement(raw: Buffer) -> bool:
    """Whether this may be an announcement rather than a message of a round."""
    return bytes(raw[:4]) == _MAGIC


def max_application_bytes(dimension: int) -> int:
    """What a hospital takes: a model of ``dimension`` values and something beside it."""
    return APPLICATION_ROOM + 8 * dimension
