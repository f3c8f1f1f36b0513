"""Keys: Ed25519 identities, X25519 agreement, HKDF, sealed boxes. All from ``cryptography``.

Every derived key is bound to the round's context (settings, roster, round number), to what it
is for and to whom, so a key or ciphertext of one place means nothing in another.
"""

from __future__ import annotations

import hashlib
import secrets

# Loaded at its first key otherwise, which a server without a free descriptor could not do.
import cryptography.hazmat.backends.openssl.backend  # noqa: F401
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from repro.secagg.counter import MemoryCounter, RoundCounter
from repro.secagg.errors import Refused
from repro.secagg.shamir import Entropy

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
TAG_BYTES = 16


class Identity:
    """A long-term Ed25519 signing key, and the memory of which rounds it has joined.

    entropy: n -> n secret uniform bytes; 32 are drawn, the secret key. counter: in memory
    unless given. A secret that is kept on disk needs a counter that is kept there, too.
    """

    def __init__(
        self, entropy: Entropy = secrets.token_bytes, *, counter: RoundCounter | None = None
    ) -> None:
        self.secret = entropy(32)
        self._key = Ed25519PrivateKey.from_private_bytes(self.secret)
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._counter: RoundCounter = MemoryCounter() if counter is None else counter

    def sign(self, purpose: str, message: bytes) -> bytes:
        return self._key.sign(_framed(purpose, message))

    def join(self, session: bytes, number: int) -> None:
        """Refuse a round that is not the one after the last one joined in the session."""
        self._counter.advance(session, number)


def verify(public: bytes, purpose: str, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is ``public``'s over (purpose, message)."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _framed(purpose, message))
    except (InvalidSignature, ValueError):
        return False
    return True


class AgreementKey:
    """An X25519 key pair that lives for one round."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def agree(self, public: bytes, context: bytes, *purpose: str | int) -> bytes:
        """32-byte key shared with the owner of ``public``, for this context and purpose."""
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # a point of small order: the "shared" secret would be zero
            raise Refused("a public key of small order") from None
        return derive(shared, context, *purpose)


def check_public(public: bytes) -> None:
    """Refuse an X25519 key of small order, with which every agreement fails."""
    AgreementKey(bytes(32)).agree(public, b"", "check")


def derive(secret: bytes, context: bytes, *purpose: str | int) -> bytes:
    """HKDF-SHA-256 (RFC 5869): 32 bytes for this context and purpose."""
    info = b"".join(
        len(part).to_bytes(4, "little") + part for part in (repr(p).encode() for p in purpose)
    )
    return HKDF(hashes.SHA256(), 32, salt=context, info=info).derive(secret)


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """ChaCha20-Poly1305 (RFC 8439). The nonce is zero: a key seals one message, ever."""
    return ChaCha20Poly1305(key).encrypt(bytes(12), plaintext, associated)


def unseal(key: bytes, ciphertext: bytes, associated: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), ciphertext, associated)
    except InvalidTag:
        raise Refused("a ciphertext that was tampered with or sealed for another") from None


def commit(context: bytes, *parts: bytes | int) -> bytes:
    """SHA-256 commitment to high-entropy values; every part is length-prefixed."""
    digest = hashlib.sha256(b"repro secagg commitment v2" + context)
    for part in parts:
        raw = part if isinstance(part, bytes) else part.to_bytes(8, "little")
        digest.update(len(raw).to_bytes(4, "little") + raw)
    return digest.digest()


def _framed(purpose: str, message: bytes) -> bytes:
    name = f"repro secagg v2 {purpose}".encode()
    return len(name).to_bytes(4, "little") + name + message
