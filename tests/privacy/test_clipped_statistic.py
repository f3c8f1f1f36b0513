"""One record changes a clipped statistic by at most C, whatever is in it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.privacy.clipped_statistic import (
    SLACK,
    clipped_product_sum,
    clipped_vector_sum,
    clipped_vectors,
    sum_error,
)

STATISTICS = [clipped_vector_sum, clipped_product_sum]
NASTY = [
    0.0, -0.0, 1.0, -1.0, 1e-3, 3e7, 1e-30, 1e30, 3e38, -3e38, 1e-45, 1.2e-38, 1e-310, 5e-324,
    1e154, 1.4e154, 1e200, -1.7e308, math.inf, -math.inf, math.nan,
]  # fmt: skip


def numbers(dtype: torch.dtype):
    """What the type holds of the nasty ones, and whatever else hypothesis thinks of."""
    width = 32 if dtype == torch.float32 else 64
    known = [float(torch.tensor(value, dtype=dtype)) for value in NASTY]
    return st.one_of(st.sampled_from(known), st.floats(width=width))


@st.composite
def records(draw):
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    rows, size = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    row = st.lists(numbers(dtype), min_size=size, max_size=size)
    values = draw(st.lists(row, min_size=rows, max_size=rows))
    return torch.tensor(values, dtype=dtype).reshape(rows, size)


def length(values: np.ndarray) -> float:
    """L2 norm by exact arithmetic, rounded once."""
    return math.sqrt(sum(Fraction(float(v)) ** 2 for v in values))


@pytest.mark.parametrize("statistic", STATISTICS)
@given(values=records(), bound=st.sampled_from([1e-20, 1e-3, 1.0, 7.5, 1e20]), data=st.data())
def test_adding_or_removing_a_record_changes_the_sum_by_at_most_the_bound(
    statistic, values, bound, data
):
    """As it is accounted for: C(1 + slack), and the rounding of both sums."""
    one = data.draw(st.integers(0, len(values) - 1), "record")
    whole = statistic(values, bound).numpy()
    without = statistic(torch.cat([values[:one], values[one + 1 :]]), bound).numpy()
    assert np.isfinite(whole).all()
    allowed = bound * (1 + SLACK) + 2 * sum_error(len(values), bound)
    assert length(whole - without) <= allowed
    alone = statistic(values[one : one + 1], bound).numpy()
    assert length(alone) <= bound * (1 + SLACK)
    if not values[one].isfinite().all():
        assert (alone == 0).all()
        assert np.array_equal(whole, without)


@given(values=records(), bound=st.sampled_from([1e-3, 1.0, 1e20]))
def test_a_record_is_shortened_along_itself_or_left_alone(values, bound):
    for row, clipped in zip(values.double(), clipped_vectors(values, bound), strict=True):
        exact = [Fraction(float(v)) if math.isfinite(v) else None for v in row]
        if None in exact or max(map(abs, exact)) > Fraction(1e153):
            continue
        norm = math.sqrt(sum(v**2 for v in exact))
        if norm <= bound * (1 - 1e-12):
            assert torch.equal(clipped, row)
        else:
            factor = min(1.0, bound / norm)
            np.testing.assert_allclose(clipped, row * factor, rtol=1e-12, atol=0)


def test_products_are_the_outer_products_of_vectors_of_the_roots_length():
    """Records one at a time in NumPy; C = 4, so vectors are clipped to 2."""
    values = np.random.default_rng(0).normal(size=(30, 6)) * np.geomspace(0.1, 10, 30)[:, None]
    expected = np.zeros((6, 6))
    for row in values:
        row = row * min(1.0, 2 / np.linalg.norm(row))
        expected += np.outer(row, row)
    found = clipped_product_sum(torch.from_numpy(values), 4.0).numpy()
    upper = np.triu_indices(6)
    expected = np.where(upper[0] == upper[1], 1, np.float32(math.sqrt(2))) * expected[upper]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    one = clipped_product_sum(torch.full((1, 6), 9.0), 4.0)
    assert float(one.norm()) == pytest.approx(4.0, rel=2e-8)  # the bound is reached


def test_the_stated_error_of_a_sum_is_kept():
    """Against exact sums of 2,000 vectors of length 1 that nearly cancel."""
    stream = np.random.default_rng(1)
    values = stream.normal(size=(1000, 3))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    values = np.concatenate([values, -values * (1 - 1e-9)])
    rows = clipped_vectors(torch.from_numpy(values), 1.0).numpy()
    exact = [sum(map(Fraction, column)) for column in rows.T.tolist()]
    found = clipped_vector_sum(torch.from_numpy(values), 1.0).tolist()
    error = math.sqrt(sum((Fraction(f) - e) ** 2 for f, e in zip(found, exact, strict=True)))
    assert error <= sum_error(2000, 1.0) < 1e-9


def test_a_sum_can_err_by_nearly_what_is_stated():
    """Numbers up to 1, added one after another, each so that all of its rounding is lost."""
    total, exact, count = 16.0, Fraction(16), 2000
    for _ in range(count):
        grid = math.ulp(total)
        number = (math.floor(1 / grid) - 1) * grid + 0.4375 * grid
        total, exact = total + number, exact + Fraction(number)
    assert sum_error(count, 1.0) / 4 < exact - Fraction(total) < sum_error(count, 1.0)


def test_no_records_give_zeros():
    assert clipped_vector_sum(torch.zeros(0, 4), 1.0).tolist() == [0.0] * 4
    assert clipped_product_sum(torch.zeros(0, 4), 1.0).tolist() == [0.0] * 10


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf, 1e-101, 1e101])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_bounds_that_cannot_be_are_refused(statistic, bound):
    with pytest.raises(InputError, match="bound: got"):
        statistic(torch.ones(2, 2), bound)


def test_vectors_too_long_for_the_proof_are_refused():
    with pytest.raises(InputError, match="at most 5000000 numbers"):
        clipped_vectors(torch.ones(1, 5_000_001), 1.0)
