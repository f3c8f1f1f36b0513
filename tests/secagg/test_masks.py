"""The mask generator against an independent ChaCha20, its rejection, and its uniformity."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from scipy import stats

from repro.secagg import Field
from repro.secagg import masks as masks_module
from repro.secagg.field import BLOCK
from repro.secagg.keys import derive
from repro.secagg.masks import add_mask, mask, subtract_mask

KEY = bytes(range(32))
BITS = pytest.mark.parametrize("bits", [31, 61])


def chacha20_block(key: bytes, counter: int) -> bytes:
    """RFC 8439, section 2.3, written from the specification (zero nonce)."""
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    start += [*struct.unpack("<8I", key), counter, 0, 0, 0]
    state = list(start)

    def rotate(value, by):
        return ((value << by) | (value >> (32 - by))) & 0xFFFFFFFF

    def quarter(a, b, c, d):
        for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) & 0xFFFFFFFF
            state[z] = rotate(state[z] ^ state[x], by)

    for _ in range(10):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for shift in range(4):
            quarter(*(4 * row + (shift + row) % 4 for row in range(4)))
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, start, strict=True)))


@BITS
def test_mask_is_the_low_bits_of_chacha20(bits):
    field = Field(bits)
    stream = b"".join(chacha20_block(KEY, counter) for counter in range(8))
    words = np.frombuffer(stream, dtype=field.dtype).tolist()
    expected = [word % 2**bits for word in words]
    assert mask(field, KEY, len(words)).tolist() == expected


@BITS
def test_rejected_words_are_skipped_at_both_ends(bits, monkeypatch):
    """With a source that is full of the one rejected value, both ends draw the same mask."""
    field = Field(bits)
    top = field.dtype.type(-1 % 2 ** (8 * field.dtype.itemsize))  # its low bits are 2ⁿ − 1

    def source(key):
        count = 0

        def fill(words):
            nonlocal count
            numbers = np.arange(count, count + len(words), dtype=field.dtype)
            words[:] = np.where(numbers % 3 == 0, top, numbers)
            count += len(words)

        return fill

    monkeypatch.setattr(masks_module, "chacha20_words", source)
    length = BLOCK + 100
    drawn = mask(field, KEY, length)
    kept = [n for n in range(2 * length) if n % 3]
    assert drawn.tolist() == kept[:length]
    total = field.zeros(length)
    add_mask(field, total, KEY)
    subtract_mask(field, total, KEY)
    assert not total.any()


@BITS
@pytest.mark.parametrize("length", [1, 7, BLOCK, BLOCK + 1])
def test_a_longer_mask_begins_with_the_shorter(bits, length):
    field = Field(bits)
    np.testing.assert_array_equal(mask(field, KEY, 2 * BLOCK)[:length], mask(field, KEY, length))


@BITS
def test_masks_are_uniform(bits):
    """χ² over 256 cells of the high and low bits; p > 1e-6, a fixed key: no false alarms."""
    field = Field(bits)
    drawn = mask(field, KEY, 1 << 18).astype(np.uint64)
    for cells in (drawn >> np.uint64(bits - 8), drawn & np.uint64(255)):
        counts = np.bincount(cells.astype(np.int64), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6


def test_a_derived_key_is_for_one_context_and_purpose_alone():
    """No two of these are alike, those included whose parts read the same side by side."""
    purposes = [("seal", 1, 2), ("seal", 2, 1), ("seal", 12), ("seal", 1, "2"), ("pairwise mask",)]
    contexts = [b"\0" * 32, b"\1" * 32]
    keys = {derive(KEY, context, *purpose) for context in contexts for purpose in purposes}
    assert len(keys) == len(contexts) * len(purposes)


def test_every_key_bit_matters():
    """No folding of the key to 32 bits: each flipped bit gives an unrelated mask."""
    field = Field(31)
    first = mask(field, KEY, 64)
    for bit in range(256):
        key = (int.from_bytes(KEY, "big") ^ (1 << bit)).to_bytes(32, "big")
        assert np.count_nonzero(mask(field, key, 64) == first) <= 1
