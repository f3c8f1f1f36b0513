"""Integers summed as they are: exact, centred, and wrapping around as the integers mod p do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg import Contribution, Field, IntegerEncoding
from tests.secagg.parties import Stage

DTYPES = ["int8", "int32", "int64", "uint32", "uint64"]


@given(
    bits=st.sampled_from([31, 61]),
    dtype=st.sampled_from(DTYPES),
    values=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=5),
)
def test_elements_are_residues(bits, dtype, values):
    """Against Python's integers, for every value a dtype holds."""
    info, encoding = np.iinfo(dtype), IntegerEncoding(Field(bits), 3)
    vector = np.array([max(info.min, min(info.max, value)) for value in values], dtype=dtype)
    encoded = encoding.encode(vector, 1, 0)
    assert encoded.dtype == encoding.field.dtype
    assert encoded.tolist() == [int(value) % encoding.field.modulus for value in vector]


@given(
    hospitals=st.integers(1, 20),
    bits=st.sampled_from([31, 61]),
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1.0, 0.25, 3.0]),
)
def test_bounded_integers_come_back_exactly(hospitals, bits, seed, scale):
    encoding = IntegerEncoding(Field(bits), hospitals, scale=scale)
    random, top = np.random.default_rng(seed), encoding.magnitude
    vectors = random.integers(-top, top + 1, (hospitals, 7))
    vectors[:, 0], vectors[:, 1] = top, -top
    total = encoding.field.zeros(7)
    for vector in vectors:
        encoding.field.add_into(total, encoding.encode(vector, 1, 0))
    exact = [sum(map(int, column)) for column in vectors.T]
    assert encoding.centred(total).tolist() == exact
    decoded = encoding.decode(total, hospitals)
    np.testing.assert_allclose(decoded.mean, np.array(exact) * scale / hospitals, rtol=1e-15)
    assert (decoded.weight, decoded.clipped_count, decoded.max_error_bound) == (hospitals, 0, 0.0)


def test_one_large_value_wraps_and_the_sum_is_still_right():
    """Reduction is a homomorphism: what counts is where the sum lies, not its summands."""
    encoding = IntegerEncoding(Field(31), 2)
    total = encoding.encode(np.array([2**40 + 5]), 1, 0)
    encoding.field.add_into(total, encoding.encode(np.array([-(2**40)]), 1, 0))
    assert encoding.centred(total).tolist() == [5]


def test_in_a_whole_round():
    """int64 vectors in, their exact sum out, through masks and drop-outs."""
    encoding = IntegerEncoding(Field(31), 5, magnitude=10_000)
    stage = Stage(5, 3, dimension=9, encoding=encoding)
    random = np.random.default_rng(3)
    vectors = {one: random.integers(-9_999, 9_999, 9) for one in range(5)}
    stage.vectors = {one: Contribution(vector) for one, vector in vectors.items()}
    total = stage.play()
    assert stage.round.dimension == 9
    assert encoding.centred(total).tolist() == sum(vectors.values()).tolist()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"magnitude": -1}, "magnitude"),
        ({"magnitude": (2**31 - 2) // 20 + 1}, "magnitude"),
        ({"hospitals": 0}, "hospitals"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": float("inf")}, "scale"),
    ],
)
def test_bad_settings(change, field):
    with pytest.raises(InputError) as caught:
        IntegerEncoding(**{"field": Field(31), "hospitals": 10, **change})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("vector", "weight"),
    [(np.zeros(3), 1), (np.zeros((1, 3), int), 1), (np.zeros(3, int), 2), (np.zeros(3, bool), 1)],
)
def test_bad_vectors(vector, weight):
    with pytest.raises(InputError):
        IntegerEncoding(Field(31), 10).encode(vector, weight, 0)
