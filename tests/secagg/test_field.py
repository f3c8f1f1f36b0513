"""Field arithmetic against Python integers, at the edges and at block borders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg import Field, Refused
from repro.secagg.field import BLOCK, blocks

BITS = pytest.mark.parametrize("bits", [31, 61])


@BITS
@given(data=st.data())
def test_add_and_subtract_match_integers(bits, data):
    """Every pair, zeros and p − 1 among them, gives the reduced integer result."""
    field = Field(bits)
    edge = st.sampled_from([0, 1, field.modulus // 2, field.modulus - 1])
    element = edge | st.integers(0, field.modulus - 1)
    pairs = data.draw(st.lists(st.tuples(element, element), min_size=1, max_size=50))
    left = np.array([a for a, _ in pairs], dtype=field.dtype)
    right = np.array([b for _, b in pairs], dtype=field.dtype)
    total = left.copy()
    field.add_into(total, right)
    assert total.tolist() == [(a + b) % field.modulus for a, b in pairs]
    difference = left.copy()
    field.subtract_into(difference, right)
    assert difference.tolist() == [(a - b) % field.modulus for a, b in pairs]
    assert right.tolist() == [b for _, b in pairs]


@BITS
@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_block_borders(bits, length):
    field = Field(bits)
    random = np.random.default_rng(length)
    left, right = random.integers(0, field.modulus, (2, length)).astype(field.dtype)
    total = left.copy()
    field.add_into(total, right)
    field.subtract_into(total, right)
    np.testing.assert_array_equal(total, left)
    assert sum(part.stop - part.start for part in blocks(length)) == length


@BITS
def test_check_refuses_what_is_not_reduced(bits):
    field = Field(bits)
    field.check(np.array([0, field.modulus - 1], dtype=field.dtype))
    for bad in (field.modulus, field.modulus + 1, 2 ** (field.dtype.itemsize * 8) - 1):
        with pytest.raises(Refused):
            field.check(np.array([0, bad], dtype=field.dtype))
    with pytest.raises(Refused):
        field.check(np.zeros(3, dtype=np.int16))


def test_moduli_are_the_mersenne_primes():
    """Lucas–Lehmer, so that the arithmetic is a field's and not only a ring's."""
    for bits in (31, 61):
        modulus, value = Field(bits).modulus, 4
        for _ in range(bits - 2):
            value = (value * value - 2) % modulus
        assert value == 0


def test_other_widths_are_bad_input():
    with pytest.raises(InputError):
        Field(32)
