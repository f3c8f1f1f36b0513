"""The encoding: no overflow at the extremes, the bound holds, rounding is unbiased and keyed."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from repro.errors import InputError
from repro.secagg import Encoding, Field
from repro.secagg import encoding as encoding_module
from repro.secagg.field import BLOCK


def decode_sum(encoding, encoded):
    """Encoded vectors summed in the field with Python integers, then decoded."""
    modulus = encoding.field.modulus
    total = [sum(column) for column in zip(*(e.tolist() for e in encoded), strict=True)]
    assert max(total) < modulus  # no overflow, so reduction never changes anything
    return encoding.decode(np.array(total, dtype=encoding.field.dtype), len(encoded))


def weighted_mean(vectors, weights, limit):
    border = np.float64(np.float32(limit))
    clipped = [np.clip(v.astype(np.float64), -border, border) for v in vectors]
    total = sum(w * c for w, c in zip(weights, clipped, strict=True))
    return total / sum(weights)


@given(data=st.data())
@settings(max_examples=150)
def test_mean_is_within_the_bound(data):
    """Any survivors, weights, ranges and values (far outside the range too), both fields."""
    field = Field(data.draw(st.sampled_from([31, 61])))
    hospitals = data.draw(st.integers(1, 20))
    encoding = Encoding(
        field,
        hospitals,
        clip_range=data.draw(st.floats(1e-3, 1e3)),
        max_weight=data.draw(st.integers(1, 100_000)),
    )
    survivors = data.draw(st.integers(1, hospitals))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    elements = st.floats(-2000, 2000, width=32)
    vectors = [data.draw(arrays.arrays(dtype, 5, elements=elements)) for _ in range(survivors)]
    weight = st.integers(0, encoding.max_weight)
    weights = [max(1, data.draw(weight)), *(data.draw(weight) for _ in range(survivors - 1))]
    decoded = decode_sum(
        encoding,
        [
            encoding.encode(v, w, 77 + i)
            for i, (v, w) in enumerate(zip(vectors, weights, strict=True))
        ],
    )
    error = np.abs(decoded.mean - weighted_mean(vectors, weights, encoding.clip_range)).max()
    # Reference and decoding both round in float64, relative to the range.
    assert error <= decoded.max_error_bound + 1e-13 * encoding.clip_range
    assert decoded.weight == sum(weights)
    limit = np.float32(encoding.clip_range)
    assert decoded.clipped_count == sum(int((np.abs(v) > dtype(limit)).sum()) for v in vectors)


@pytest.mark.parametrize("bits", [31, 61])
@pytest.mark.parametrize("hospitals", [1, 2, 3, 10, 500])
def test_no_overflow_at_the_extremes(bits, hospitals):
    """Everybody at +R with the largest weight: the sum is below p and decodes to +R."""
    encoding = Encoding(Field(bits), hospitals, clip_range=8.0, max_weight=2000)
    for value in (8.0, -8.0, 0.0):
        vector = np.full(9, value, dtype=np.float32)
        encoded = encoding.encode(vector, 2000, 3)
        assert hospitals * int(encoded.max()) < encoding.field.modulus
        total = (encoded.astype(object) * hospitals).astype(encoding.field.dtype)
        decoded = encoding.decode(total, hospitals)
        assert np.abs(decoded.mean - value).max() <= decoded.max_error_bound + 1e-12


def test_no_overflow_where_float64_rounds_up(monkeypatch):
    """h + (1 − 2⁻³²) is h + 1 in float64: one unit too many, were it not for the last clip."""
    almost_one = 1 - 2.0**-32
    monkeypatch.setattr(encoding_module, "_rounding", lambda _: lambda words: words.fill(2**32 - 1))
    encoding = Encoding(Field(31), 4, clip_range=8.0, max_weight=1)
    encoded = encoding.encode(np.full(5, 8.0), 1, 0)[:-2]
    assert np.floor(float(encoding.half_range) + almost_one) == encoding.half_range + 1
    assert int(encoded.max()) == 2 * encoding.half_range


def test_bound_is_the_closed_form():
    """2·K·R·(W/n̄)/p at full attendance, to the rounding of h: the formula of the page."""
    encoding = Encoding(Field(31), 10, clip_range=8.0, max_weight=10_000)
    bound = encoding.error_bound(10, 9562)
    assert bound == pytest.approx(2 * 10 * 8.0 * (10_000 / 956.2) / (2**31 - 1), rel=1e-5)
    assert bound < 8e-7


def test_clipping_at_the_float32_range_is_not_counted_inside():
    """A float32 just at the range is inside it, also when the range is no float32."""
    encoding = Encoding(Field(31), 2, clip_range=0.1, max_weight=1)
    at, over = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))
    encoded = encoding.encode(np.array([at, -at, over, -over, 5], dtype=np.float32), 1, 0)
    assert encoded[-1] == 3


def test_clipped_count_saturates_rather_than_overflows():
    encoding = Encoding(Field(31), 2**20, clip_range=1.0, max_weight=1)
    assert encoding.largest_summand == 2047
    assert encoding.encode(np.full(5000, 2.0), 1, 0)[-1] == 2047


def test_rounding_is_unbiased():
    """Mean of 200,000 roundings of 0.3 steps is 0.3 within 6 standard errors (2e-9 by chance)."""
    encoding = Encoding(Field(31), 10, clip_range=1.0, max_weight=1)
    count, fraction = 200_000, 0.3
    vector = np.full(count, fraction * encoding.step)
    rounded = encoding.encode(vector, 1, 9)[:-2].astype(np.int64) - encoding.half_range
    assert set(np.unique(rounded)) == {0, 1}
    error = np.sqrt(fraction * (1 - fraction) / count)
    assert abs(rounded.mean() - fraction) < 6 * error


def test_rounding_is_keyed_by_flat_index():
    """Coordinate j uses word j of the key's ChaCha20 stream, across block borders."""
    encoding = Encoding(Field(31), 4, clip_range=1.0, max_weight=1)
    length, key = BLOCK + 7, 0x0123456789ABCDEF
    vector = np.random.default_rng(0).uniform(-1, 1, length)
    encoded = encoding.encode(vector, 1, key)
    secret = hashlib.blake2b(b"stochastic rounding" + struct.pack("<Q", key), digest_size=32)
    stream = (
        Cipher(ChaCha20(secret.digest(), bytes(16)), None).encryptor().update(bytes(4 * length))
    )
    words = np.frombuffer(stream, "<u4")
    for j in (0, 1, 2, 3, 4, 1001, BLOCK - 1, BLOCK, BLOCK + 1, length - 1):
        scaled = vector[j] * (1 / encoding.step) + words[j] / 2**32
        assert int(encoded[j]) == int(np.floor(scaled)) + encoding.half_range
    np.testing.assert_array_equal(encoded, encoding.encode(vector, 1, key))
    assert (encoded != encoding.encode(vector, 1, key + 1))[:-2].any()


@pytest.mark.parametrize(
    ("vector", "weight"),
    [
        (np.array([np.nan]), 1),
        (np.array([1.0, np.inf], dtype=np.float32), 1),
        (np.zeros((2, 2)), 1),
        (np.zeros(3, dtype=np.int64), 1),
        (np.zeros(3), -1),
        (np.zeros(3), 10_001),
    ],
)
def test_what_cannot_be_encoded_is_bad_input(vector, weight):
    with pytest.raises(InputError):
        Encoding(Field(31), 4).encode(vector, weight, 0)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"hospitals": 0}, "hospitals"),
        ({"clip_range": 0.0}, "clip_range"),
        ({"clip_range": float("inf")}, "clip_range"),
        ({"clip_range": float("nan")}, "clip_range"),
        ({"clip_range": 1e-50}, "clip_range"),
        ({"clip_range": 1e50}, "clip_range"),
        ({"max_weight": 0}, "max_weight"),
        ({"max_weight": 2**31}, "max_weight"),
        ({"hospitals": 2**29, "max_weight": 4}, "max_weight"),
        ({"hospitals": 2**30, "max_weight": 3}, "hospitals"),  # no room for a step either way
    ],
)
def test_settings_that_could_overflow_are_bad_input(more, field):
    with pytest.raises(InputError) as caught:
        Encoding(**{"field": Field(31), "hospitals": 4, **more})
    assert caught.value.field == field


def test_no_weight_at_all_has_no_mean():
    encoding = Encoding(Field(31), 2)
    with pytest.raises(InputError):
        encoding.decode(encoding.encode(np.zeros(3), 0, 1), 1)
