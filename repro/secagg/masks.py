"""The mask generator: a 256-bit key becomes a vector of uniform field elements.

ChaCha20 (RFC 8439) under the full key gives little-endian words; each keeps its low 31 (61)
bits; the one value that is no field element, 2ⁿ − 1, is dropped and the stream goes on.
So both ends of a pair draw the same mask, and it is exactly uniform if the key stream is.
The nonce is zero because every key is derived for one mask of one round.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from repro.secagg.field import BLOCK, Field

_ZEROS = memoryview(bytes(8 * BLOCK))


# Fills an array of words with the next bytes of a key stream.
WordSource = Callable[[np.ndarray], None]


def chacha20_words(key: bytes) -> WordSource:
    """The ChaCha20 key stream of a 256-bit key, as a source of words."""
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def fill(words: np.ndarray) -> None:
        room = words.data.cast("B")
        for start in range(0, len(room), len(_ZEROS)):
            part = room[start : start + len(_ZEROS)]
            stream.update_into(_ZEROS[: len(part)], part)

    return fill


def add_mask(field: Field, total: np.ndarray, key: bytes) -> None:
    """``total ← total + mask(key)``, in place. total: (n,) field elements."""
    _apply(field, total, chacha20_words(key), field.add_block)


def subtract_mask(field: Field, total: np.ndarray, key: bytes) -> None:
    """``total ← total − mask(key)``, in place. total: (n,) field elements."""
    _apply(field, total, chacha20_words(key), field.subtract_block)


def mask(field: Field, key: bytes, length: int) -> np.ndarray:
    """The mask itself, (length,) field elements."""
    total = field.zeros(length)
    add_mask(field, total, key)
    return total


def _apply(
    field: Field,
    total: np.ndarray,
    source: WordSource,
    combine: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
) -> None:
    words = np.empty(min(BLOCK, len(total)), dtype=field.dtype)
    low_bits = field.dtype.type(field.modulus)
    done = 0
    while done < len(total):
        drawn = words[: len(total) - done]
        source(drawn)
        np.bitwise_and(drawn, low_bits, out=drawn)
        if int(drawn.max()) == field.modulus:  # once in 2³¹ (2⁶¹) words
            drawn = drawn[drawn != low_bits]
        combine(total[done : done + len(drawn)], drawn, drawn)
        done += len(drawn)
