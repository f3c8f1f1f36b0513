"""The proof on shares: complete, sound against any single change, and silent about the vector."""

from __future__ import annotations

from itertools import combinations, permutations
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from repro.secagg.bounded.bound import NormBound, P
from repro.secagg.bounded.circuit import (
    GATES,
    QUERIES,
    Circuit,
    _drawn,
    _lagrange,
    _product,
    blinding,
)
from repro.secagg.bounded.projections import project

BOUND = NormBound(1000.0, 4, rows=200)
CIRCUIT = Circuit(BOUND)
KEY = bytes(31) + b"k"


def projections(norm: float = 1000.0, seed: int = 0) -> np.ndarray:
    """(rows,) field elements: of a vector of that norm."""
    vector = np.random.default_rng(seed).standard_normal(500)
    whole = np.trunc(vector / np.linalg.norm(vector) * norm).astype(np.int64)
    return project(KEY, BOUND.rows, np.mod(whole, P).astype(np.uint32)[None])[0]


def proved(values: np.ndarray, seed: int = 0) -> np.ndarray:
    return CIRCUIT.prove(values, blinding(bytes([seed] * 32), CIRCUIT.blinding_size))


def accepted(proof: np.ndarray, values: np.ndarray, challenge: bytes = b"c") -> bool:
    return CIRCUIT.accepts(CIRCUIT.answers(proof, values, challenge, constants=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(0, 1000))
def test_shares_of_a_true_statement_pass(parties, seed, norm):
    values = projections(norm, seed)
    assert CIRCUIT.keeps(values)
    rng = np.random.default_rng(seed)
    total = np.zeros(CIRCUIT.answer_size, np.uint64)
    left, left_z = proved(values, seed % 256), values
    for party in range(parties):
        last = party == parties - 1
        share = left if last else rng.integers(0, P, CIRCUIT.size, dtype=np.uint64)
        share_z = left_z if last else rng.integers(0, P, BOUND.rows, dtype=np.uint64)
        left, left_z = (left + P - share) % P, (left_z + P - share_z) % P
        total += CIRCUIT.answers(share, share_z, b"challenge", constants=last)
    assert CIRCUIT.accepts(total % np.uint64(P))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, CIRCUIT.size - 1), st.integers(1, P - 1))
def test_no_element_of_a_proof_can_be_changed(at, by):
    values = projections()
    proof = proved(values)
    proof[at] = (int(proof[at]) + by) % P
    assert not accepted(proof, values)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, BOUND.rows - 1), st.integers(1, P - 1))
def test_a_proof_is_of_its_projections_only(at, by):
    values = projections()
    proof = proved(values)
    values[at] = (int(values[at]) + by) % P
    assert not accepted(proof, values)


@pytest.mark.parametrize("norm", [1300.0, 3000.0, 1e5])
def test_false_statements_have_no_proof_made_as_usual(norm):
    values = projections(norm)
    assert not CIRCUIT.keeps(values)
    assert not accepted(proved(values), values)


def test_a_number_that_is_no_bit_does_not_pass():
    """The lowest two bits 0 and 1 written as 2 and 0: z and its square are the same, and all of h
    that is sent is f·(f − 1) of the f that has the 2; only its value at the gate is not."""
    values = projections()
    lifted = (values + np.uint64(BOUND.reach)) % np.uint64(P)
    row = int(np.flatnonzero(lifted % np.uint64(4) == 2)[0])
    first = row * BOUND.bits
    assert BOUND.shift >= 2  # the square does not see these bits
    honest = CIRCUIT._bits_of(values)
    assert honest[first : first + 2].tolist() == [0, 1]
    bits_of = Circuit._bits_of
    cheat = honest.copy()
    cheat[first : first + 2] = 2, 0
    Circuit._bits_of = lambda *_: cheat
    try:
        proof = proved(values)
    finally:
        Circuit._bits_of = bits_of
    answers = CIRCUIT.answers(proof, values, b"c", constants=True)
    assert not answers[-QUERIES:].any()  # everything linear holds
    assert not CIRCUIT.accepts(answers)


def test_what_is_opened_of_f_is_any_value_whatever_the_statement():
    """From the random values to the opened ones is one to one, so they are uniform too."""
    for challenge in (b"a", b"b", b"c"):
        points, _ = _drawn(challenge, 1)
        matrix = [[int(one) for one in _lagrange(at, GATES + QUERIES)[GATES:]] for at in points]
        signed = [
            (-1) ** sum(a > b for a, b in combinations(order, 2))
            * prod(matrix[row][column] for row, column in enumerate(order))
            for order in permutations(range(QUERIES))
        ]
        assert sum(signed) % P  # the determinant


def test_points_are_distinct_and_never_at_a_gate():
    for number in range(200):
        points, weights = _drawn(number.to_bytes(4, "little"), 7)
        assert len(set(points)) == QUERIES
        assert min(points) >= 2 * (GATES + QUERIES) - 1
        assert weights.shape == (QUERIES, 7)


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_products_are_exact(size, seed):
    rng = np.random.default_rng(seed)
    left, right = (rng.integers(0, P, (n, size), dtype=np.uint64) for n in (2, 3))
    left[0], right[0] = P - 1, P - 1
    exact = [[sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) % P for y in right]
             for x in left]  # fmt: skip
    assert _product(left, right).tolist() == exact


def test_projections_are_linear_exact_and_of_the_right_distribution():
    rng = np.random.default_rng(1)
    vectors = rng.integers(0, P, (2, 5000), dtype=np.uint64)
    both = np.r_[vectors, [vectors.sum(0) % np.uint64(P)]].astype(np.uint32)
    first, second, total = project(KEY, 64, both)
    assert ((first + second) % np.uint64(P) == total).all()
    # The columns of R one by one: the largest element shows that no product is rounded.
    unit = np.zeros((300, 4200), np.uint32)
    unit[np.arange(300), np.arange(300) * 14] = P - 1
    entries = project(KEY, 200, unit)
    assert set(np.unique(entries).tolist()) == {0, 1, P - 1}
    # 60,000 entries; 5 deviations of a binomial each: a false alarm in 1 of 800,000.
    assert abs((entries == 0).sum() - 30_000) < 5 * np.sqrt(15_000)
    assert abs((entries == 1).sum() - 15_000) < 5 * np.sqrt(11_250)
    assert (project(KEY, 64, both[:1]) == first).all()
    assert not (project(bytes(32), 64, both[:1]) == first).all()
