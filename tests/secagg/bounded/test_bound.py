"""The theorem of ``NormBound``: each step held to exact enumeration, the whole to adversaries."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.errors import InputError
from repro.secagg.bounded import Circuit, NormBound, allowance, project
from repro.secagg.bounded.bound import _BETA, P

REACH = P // 85  # T of the enumerated cases, as large as the theorem takes it


def row_distribution(vector: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """All values of ⟨r, x⟩ over the integers and their probabilities, exactly."""
    entries = list(itertools.product((-1, 0, 1), repeat=len(vector)))
    values = np.array([sum(r * x for r, x in zip(row, vector, strict=True)) for row in entries])
    weights = np.array([math.prod(0.5 if r == 0 else 0.25 for r in row) for row in entries])
    return values, weights


def passes(vector: list[int]) -> float:
    """The probability that one row modulo p lies in −T … T − 1."""
    values, weights = row_distribution(vector)
    centred = (values + P // 2) % P - P // 2
    return float(weights[(centred >= -REACH) & (centred < REACH)].sum())


anything = st.integers(-(P // 2), P // 2)
short = st.integers(-2 * REACH, 2 * REACH)


@settings(max_examples=60)
@given(st.lists(anything, min_size=0, max_size=6), st.integers(2 * REACH + 1, P // 2))
def test_a_row_passes_half_the_time_at_most_with_a_long_coordinate(rest, long):
    assert passes([long, *rest]) <= 0.5


@settings(max_examples=60)
@given(st.lists(short, min_size=8, max_size=9))
def test_a_row_passes_half_the_time_at_most_with_a_long_vector(vector):
    at_least = _BETA * REACH
    norm = math.sqrt(sum(x * x for x in vector))
    if norm <= at_least:
        vector = [REACH * 2 if x >= 0 else -2 * REACH for x in vector]
    assert passes(vector) <= 0.5


def test_the_steps_of_case_b_hold():
    """The kernel is 1 or more in the window, and what its transform weighs is ½ in all at β."""
    a = mpmath.pi / 2
    kappa = ((a / 2) / mpmath.sin(a / 2)) ** 2

    def kernel(u):
        return kappa * (mpmath.sin(a * u / 2) / (a * u / 2)) ** 2

    assert min(kernel(mpmath.mpf(k) / 100) for k in range(1, 101)) >= 1 - mpmath.mpf(10) ** -12
    for u in (0.3, 1.0, 2.5):
        transform = mpmath.quad(lambda t: (1 - abs(t) / a) * mpmath.cos(t * u), [-a, 0, a])  # noqa: B023
        assert abs(kappa * transform / a - kernel(mpmath.mpf(u))) < 1e-10
    beta = mpmath.mpf(_BETA)
    weight = mpmath.quad(lambda t: mpmath.exp(-((beta * t / 2) ** 2)), [-mpmath.inf, mpmath.inf])
    assert abs(kappa / a * weight - 0.5) < 1e-12


@settings(max_examples=60)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=8).filter(any), st.floats(0.01, 0.6))
def test_short_sums_of_squares_are_as_rare_as_the_bound_says(vector, theta):
    values, weights = row_distribution(vector)
    half = sum(x * x for x in vector) / 2
    assert weights @ values.astype(float) ** 2 == pytest.approx(half)
    assert weights @ values.astype(float) ** 4 <= 3 * half**2 * (1 + 1e-12)
    moment = weights @ np.exp(-theta * values.astype(float) ** 2 / half)
    assert moment <= 1 - theta + 1.5 * theta**2


@settings(max_examples=60)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=8).filter(any))
def test_a_row_is_sub_gaussian_with_half_the_squared_norm(vector):
    values, weights = row_distribution(vector)
    half = sum(x * x for x in vector) / 2
    for theta in (0.1, 0.3, 0.45):
        assert weights @ np.exp(theta * values.astype(float) ** 2 / half) <= (1 - 2 * theta) ** -0.5
    for times in (0.5, 1, 2):
        reach = times * math.sqrt(2 * half)
        tail = weights[np.abs(values) >= reach].sum()
        assert tail <= 2 * math.exp(-(reach**2) / (2 * half)) + 1e-15


@pytest.mark.parametrize("rows", [256, 512, 1024])
@pytest.mark.parametrize("error", [2.0**-30, 2.0**-40])
def test_the_proved_bound_has_the_error_it_states(rows, error):
    bound = NormBound(1e5, 10, rows=rows, error=error)
    unit = 2.0**bound.shift
    largest_sum = (unit * (math.sqrt(bound.most) + math.sqrt(rows) * (bound.shift > 0))) ** 2
    part = largest_sum / (rows * bound.proved**2 / 2)  # η: Σ v² that passes, against its mean
    theta = np.linspace(1e-4, 0.66, 20_000)
    log_error = (rows * (theta * part + np.log(1 - theta + 1.5 * theta**2))).min()
    assert log_error == pytest.approx(math.log(error / 2), rel=1e-3)
    assert 85 * bound.reach <= P
    assert rows * 4.0 ** (bound.bits - 1 - bound.shift) <= 2**30  # the squares cannot wrap


def test_more_rows_prove_more():
    proved = [NormBound(1e5, 10, rows=rows).proved for rows in (200, 256, 512, 1024, 4096)]
    assert proved == sorted(proved, reverse=True)
    assert proved[1] < 2.6e5
    assert proved[-1] < 1.3e5


LENGTH = 3000
RNG = np.random.default_rng(3)
SHAPES = {
    "one coordinate": np.eye(1, LENGTH)[0],
    "flat": np.ones(LENGTH),
    "normal": RNG.standard_normal(LENGTH),
    "heavy tails": RNG.standard_cauchy(LENGTH),
    "two scales": np.r_[np.ones(LENGTH - 8), 100 * np.ones(8)],
}


def scaled(shape: np.ndarray, norm: float) -> np.ndarray:
    return np.floor(shape / np.linalg.norm(shape) * norm + 0.5).astype(np.int64)


def kept(bound: NormBound, vector: np.ndarray, key: int) -> bool:
    elements = np.mod(vector, P).astype(np.uint32)[None]
    return Circuit(bound).keeps(project(key.to_bytes(32, "little"), bound.rows, elements)[0])


@pytest.mark.parametrize("name", SHAPES)
def test_honest_vectors_pass_and_those_above_the_proved_bound_do_not(name):
    # 20 keys each: a false alarm has probability below 5 · 20 · 2⁻²⁰ = 1e-4, an escape 1e-10.
    bound = NormBound(1e5 + math.sqrt(LENGTH), 10)
    for key in range(20):
        assert kept(bound, scaled(SHAPES[name], 1e5), key)
        assert not kept(bound, scaled(SHAPES[name], 1.01 * bound.proved), key)


@pytest.mark.parametrize("size", [P // 2, P // 3, P // 4 + 1, 2**25, 10**7])
@pytest.mark.parametrize("count", [1, 2, 50, LENGTH])
def test_vectors_that_wrap_around_do_not_pass(size, count):
    vector = np.zeros(LENGTH, np.int64)
    vector[:count] = size
    bound = NormBound(1e5, 10)
    assert not any(kept(bound, vector, key) for key in range(5))


@pytest.mark.parametrize("rows", [256, 4096])
def test_the_largest_norm_leaves_the_room_that_the_theorem_asks_for(rows):
    with pytest.raises(InputError) as refused:
        NormBound(1e9, 10, rows=rows)
    largest = float(str(refused.value).split("at most ")[1].split(",")[0])
    assert 85 * NormBound(0.999 * largest, 10, rows=rows).reach <= P
    with pytest.raises(InputError, match="no projection wraps"):
        NormBound(1.001 * largest, 10, rows=rows)


def test_every_row_is_drawn():
    """Of the largest matrix, too, which no single piece of key stream fills."""
    vectors = np.random.default_rng(0).integers(0, P, (1, 5000), dtype=np.uint64).astype(np.uint32)
    rows = project(bytes(32), 4096, vectors)[0]
    assert len(np.unique(rows)) > 4090
    bound = NormBound(1e4, 10, rows=4096)
    assert not kept(bound, scaled(SHAPES["normal"], 1.3 * bound.norm), 1)


def test_noise_is_within_its_allowance():
    # 200 vectors: the chance that one is longer is below 200 · 2⁻²⁰ = 2e-4.
    deviation, length = 30.0, 1000
    noise = np.rint(np.random.default_rng(0).normal(0, deviation, (200, length)))
    norms = np.linalg.norm(noise, axis=1)
    most = allowance(0.0, math.sqrt(deviation**2 + 1 / 12), length)
    assert norms.max() < most < 1.25 * norms.mean()


@pytest.mark.parametrize(
    ("settings_", "named"),
    [
        ({"norm": 0.0}, "norm"),
        ({"norm": math.nan}, "norm"),
        ({"norm": 2.0**25}, "norm"),
        ({"norm": 2e6, "hospitals": 400}, "norm"),
        ({"rows": 63}, "rows"),
        ({"rows": 100}, "rows"),
        ({"rows": 5000}, "rows"),
        ({"error": 1.0}, "error"),
        ({"error": 1e-30}, "error"),
        ({"failure": 0.0}, "failure"),
        ({"hospitals": 0}, "hospitals"),
    ],
)
def test_bad_settings_are_named(settings_, named):
    with pytest.raises(InputError, match=named):
        NormBound(**{"norm": 1e5, "hospitals": 10, **settings_})
