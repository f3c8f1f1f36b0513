"""What a round is bound to: one hash over everything that gives a masked vector its meaning.

Every signature, key and ciphertext of a round depends on the context, so hospitals that hold
different ones share no mask: of a sum over them nothing but noise comes out. Which part differs
is told by short fingerprints in the signed advertisements, before anything is masked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

DIGEST_BYTES = 32
FINGERPRINT_BYTES = 8  # names a difference; what is secure is the whole context

# In this order in every advertisement.
PARTS = ("round", "directory", "thresholds", "encoding", "model", "training", "application")


def model_digest(vector: np.ndarray) -> bytes:
    """SHA-256 of a model's parameters, dtype and shape included: of what updates are relative to.

    A hospital has to hash the model it was given and trains. Then no sum mixes updates of
    different models (the model inconsistency of Pasquini et al., CCS 2022).
    """
    header = f"{vector.dtype.str} {vector.shape}".encode()
    digest = hashlib.sha256(header + b"\0")
    digest.update(np.ascontiguousarray(vector).view(np.uint8).data)
    return digest.digest()


def settings_digest(settings: Mapping[str, Any]) -> bytes:
    """SHA-256 of settings that JSON can hold; the order of keys has no part in it."""
    text = json.dumps(settings, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def part_digest(name: str, content: bytes) -> bytes:
    """One part's digest: no part can stand for another."""
    return hashlib.sha256(b"repro secagg v2 " + name.encode() + b"\0" + content).digest()


def combined(parts: Mapping[str, bytes]) -> bytes:
    """The context: SHA-256 over the digests of all ``PARTS``, 32 bytes each."""
    return hashlib.sha256(b"repro secagg round v2" + b"".join(parts[n] for n in PARTS)).digest()


def fingerprints(parts: Mapping[str, bytes]) -> bytes:
    return b"".join(parts[name][:FINGERPRINT_BYTES] for name in PARTS)


def differences(mine: bytes, theirs: bytes) -> list[str]:
    """The names of the parts whose fingerprints differ."""
    starts = range(0, len(PARTS) * FINGERPRINT_BYTES, FINGERPRINT_BYTES)
    return [
        name
        for name, at in zip(PARTS, starts, strict=True)
        if mine[at : at + FINGERPRINT_BYTES] != theirs[at : at + FINGERPRINT_BYTES]
    ]
