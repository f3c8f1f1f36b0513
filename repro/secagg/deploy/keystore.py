"""Long-term keys in files: the private one readable by its owner alone, the public one to hand on.

A private key is PKCS #8 in PEM, mode 0600; a public key is its 32 bytes in hexadecimal.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from repro.errors import InputError
from repro.files import write_whole
from repro.secagg.counter import RoundCounter
from repro.secagg.keys import PUBLIC_BYTES, Identity

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def create_identity(path: Path) -> Identity:
    """A fresh identity: ``path`` (0600) and beside it ``path``.pub. Never overwrites a key."""
    if path.exists():
        raise InputError("key", str(path), "a file that is not there yet (a key is never replaced)")
    identity = Identity()
    write_private(path, _pem(identity.secret))
    write_whole(public_path(path), identity.public.hex() + "\n")
    return identity


def load_identity(path: Path, counter: RoundCounter | None = None) -> Identity:
    """The identity in ``path``, its rounds counted by ``counter``.

    InputError if others may read the file, or if it holds no Ed25519 key.
    """
    content = read_private(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError("key", str(path), "an unencrypted Ed25519 private key in PEM")
    secret = key.private_bytes_raw()
    return Identity(lambda _: secret, counter=counter)


def public_path(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def read_public(path: Path) -> bytes:
    """The public key in a file that ``create_identity`` wrote."""
    try:
        return parse_public(path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError("public key", str(path), f"a readable file ({problem})") from None


def parse_public(text: str) -> bytes:
    """64 hexadecimal digits -> 32 bytes."""
    try:
        public = bytes.fromhex(text)
    except ValueError:
        public = b""
    if len(public) != PUBLIC_BYTES or len(text) != 2 * PUBLIC_BYTES:
        raise InputError("public key", text, f"{2 * PUBLIC_BYTES} hexadecimal digits")
    return public


def write_private(path: Path, content: bytes) -> None:
    """Mode 0600 from its first moment on."""
    write_whole(path, content, mode=0o600)


def read_private(path: Path) -> bytes:
    """The content of a file that nobody else may read; InputError if somebody may."""
    try:
        status = path.stat()
        content = path.read_bytes()
    except OSError as problem:
        raise InputError("key", str(path), f"a readable file ({problem.strerror})") from None
    if status.st_mode & _OTHERS:
        mode = oct(stat.S_IMODE(status.st_mode))
        raise InputError("key", str(path), f"a file of mode 0600, not {mode}: chmod 600 {path}")
    if status.st_uid not in (os.geteuid(), 0):
        raise InputError("key", str(path), "a file of this user's own")
    return content


def _pem(secret: bytes) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
