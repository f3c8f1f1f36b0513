"""A proof, on shares, that numbers are bits and that squares add up to no more than a bound.

The statement is ``NormBound``'s. Its proof is a fully linear one (Boneh, Boneh, Corrigan-Gibbs,
Gilboa and Ishai, CRYPTO 2019; Prio3's): the prover shares, beside the bits of z + T and
of what the squares leave of S, polynomials h. Everything that is checked is a linear function of
what is shared, so parties that hold shares work on them alone.

Gates are taken ``GATES`` at a time. f is the polynomial through a chunk's values at
0 … GATES − 1 and through random ones at the next ``QUERIES`` points; h is f·(f − 1), which is 0
wherever f's value is a bit, or f², the squares. At ``QUERIES`` points drawn afterwards the parties
open f and h: where h is not what f says, a point shows it with probability
1 − 134/(p − 135) at least, all four together but for 2⁻⁹⁵. What is opened is
uniform, because as many of f's values are; h follows from f. That z's bits make up z, and the
squares and the rest S, is opened as ``QUERIES`` random combinations of what has to be 0.
"""

from __future__ import annotations

import hashlib
from functools import cache, lru_cache
from math import factorial

import numpy as np

from repro.secagg.bounded.bound import FIELD, NormBound, P
from repro.secagg.masks import mask

GATES, QUERIES = 64, 4
_KNOWN = GATES + QUERIES  # points that fix f
_NODES = 2 * _KNOWN - 1  # points that fix h
# The prover may try proofs until the points suit it; 2⁻⁹⁵ is what each try has.
PROOF_ERROR = ((_NODES - 1) / (P - _NODES)) ** QUERIES


class Circuit:
    """Proves and checks that z, (rows,) integers, keeps ``bound``.

    What is shared is one vector of ``size`` field elements: bits, the random values of each
    chunk's f, h where it is not zero. ``prove`` makes it, ``answers`` is linear in it.
    """

    def __init__(self, bound: NormBound) -> None:
        self.bound = bound
        self._bit_count = bound.rows * bound.bits + bound.slack_bits
        self._bit_chunks = -(-self._bit_count // GATES)
        self._square_chunks = -(-bound.rows // GATES)
        chunks = self._bit_chunks + self._square_chunks
        # h of the bits is 0 at the gates and therefore not sent there.
        self._sizes = (
            self._bit_count,
            chunks * QUERIES,
            self._bit_chunks * (_NODES - GATES),
            self._square_chunks * _NODES,
        )
        self.size = sum(self._sizes)
        self.answer_size = QUERIES * (2 * chunks + 1)

    def keeps(self, projections: np.ndarray) -> bool:
        """Whether there is something to prove of (rows,) field elements."""
        reach = self.bound.reach
        within = all(-reach <= one < reach for one in _centred(projections))
        return within and self._squares(self._bits_of(projections)) <= self.bound.most

    def prove(self, projections: np.ndarray, blinding: np.ndarray) -> np.ndarray:
        """(rows,) field elements, (chunks · QUERIES,) uniform ones -> (size,) to be shared.

        Of projections that do not keep the bound nothing is proved: see ``keeps``.
        """
        bound = self.bound
        bits = self._bits_of(projections)
        left = np.uint64((bound.most - self._squares(bits)) % P)
        rest = left >> np.arange(bound.slack_bits, dtype=np.uint64) & np.uint64(1)
        bits = np.concatenate([bits, rest])
        values = self._values(bits, blinding, constants=True)
        everywhere = np.concatenate([values, _product(values, _extension())], axis=1)
        h_bits, h_squares = self._gates(everywhere)
        parts = (bits, blinding, h_bits[:, GATES:].reshape(-1), h_squares.reshape(-1))
        return np.concatenate(parts).astype(np.uint64)

    @property
    def blinding_size(self) -> int:
        return self._sizes[1]

    def answers(
        self, shared: np.ndarray, projections: np.ndarray, challenge: bytes, *, constants: bool
    ) -> np.ndarray:
        """What a share of the proof and of the projections answer; add up all parties' modulo p.

        shared: (size,), projections: (rows,) field elements. constants: true for the one party
        that the statement's constants are added by. -> (answer_size,) uint64.
        """
        bound = self.bound
        shared, projections = shared.astype(np.uint64), projections.astype(np.uint64)
        ends = np.cumsum(self._sizes)[:-1]
        bits, blinding, h_bits, h_squares = np.split(shared, ends)
        values = self._values(bits, blinding, constants=constants)
        zeros = np.zeros((self._bit_chunks, GATES), np.uint64)
        h_bits = np.concatenate([zeros, h_bits.reshape(self._bit_chunks, -1)], axis=1)
        h_squares = h_squares.reshape(self._square_chunks, _NODES)
        points, weights = _drawn(challenge, bound.rows + 1)
        at_known = np.stack([_lagrange(point, _KNOWN) for point in points])
        at_nodes = np.stack([_lagrange(point, _NODES) for point in points])
        f = _product(values, at_known)  # (chunks, QUERIES)
        h = _product(np.concatenate([h_bits, h_squares]), at_nodes)
        row_bits = bits[: bound.rows * bound.bits].reshape(bound.rows, bound.bits)
        made = _product(row_bits, _powers(bound.bits)[None])[:, 0]
        rest = _product(bits[None, bound.rows * bound.bits :], _powers(bound.slack_bits)[None])
        squares = h_squares[:, :GATES].reshape(-1)[: bound.rows].sum() % np.uint64(P)
        zero_rows = projections + np.uint64(P) - made
        zero_sum = np.uint64(2 * P) - squares - rest[0, 0]
        if constants:
            zero_rows = zero_rows + np.uint64(bound.reach)
            zero_sum = zero_sum + np.uint64(bound.most)
        zero = np.append(zero_rows, zero_sum) % np.uint64(P)
        return np.concatenate([f.reshape(-1), h.reshape(-1), _product(zero[None], weights)[0]])

    def accepts(self, answers: np.ndarray) -> bool:
        """Whether the sum of all parties' answers, modulo p, is that of a true statement."""
        f, h, zero = np.split(answers, [(len(answers) - QUERIES) // 2, len(answers) - QUERIES])
        f, h = f.reshape(-1, QUERIES), h.reshape(-1, QUERIES)
        expected = np.concatenate(self._gates(f))
        return bool((h == expected).all() and not zero.any())

    def _gates(self, f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """h from f at the same points: of the chunks of bits, and of squares."""
        one, modulus = np.uint64(P - 1), np.uint64(P)
        bits, squares = f[: self._bit_chunks], f[self._bit_chunks :]
        return bits * ((bits + one) % modulus) % modulus, squares * squares % modulus

    def _values(self, bits: np.ndarray, blinding: np.ndarray, *, constants: bool) -> np.ndarray:
        """(chunks, GATES + QUERIES): each chunk's f where it is given."""
        gates = np.zeros((self._bit_chunks + self._square_chunks) * GATES, np.uint64)
        gates[: self._bit_count] = bits
        start = self._bit_chunks * GATES
        gates[start : start + self.bound.rows] = self._high(bits, constants=constants)
        random = blinding.astype(np.uint64).reshape(-1, QUERIES)
        return np.concatenate([gates.reshape(-1, GATES), random], axis=1)

    def _bits_of(self, projections: np.ndarray) -> np.ndarray:
        """(rows · bits,): of z + T, the lowest first."""
        lifted = (projections.astype(np.uint64) + np.uint64(self.bound.reach)) % np.uint64(P)
        bits = lifted[:, None] >> np.arange(self.bound.bits, dtype=np.uint64) & np.uint64(1)
        return bits.reshape(-1)

    def _squares(self, bits: np.ndarray) -> int:
        return sum(one**2 for one in _centred(self._high(bits, constants=True)))

    def _high(self, bits: np.ndarray, *, constants: bool) -> np.ndarray:
        """(rows,): ⌊z / 2ˢ⌋ from its bits."""
        bound = self.bound
        of_rows = bits[: bound.rows * bound.bits].reshape(bound.rows, bound.bits)
        high = _product(of_rows[:, bound.shift :], _powers(bound.bits - bound.shift)[None])[:, 0]
        if constants:
            high = (high + np.uint64(P - (bound.reach >> bound.shift))) % np.uint64(P)
        return high


def blinding(key: bytes, size: int) -> np.ndarray:
    """(size,) uniform field elements from 32 bytes."""
    return mask(FIELD, key, size).astype(np.uint64)


@lru_cache(maxsize=64)  # a member answers a proof for every mask that it holds
def _drawn(challenge: bytes, count: int) -> tuple[list[int], np.ndarray]:
    """Distinct points, none of which values are given at; and (QUERIES, count) weights."""
    stream = mask(FIELD, hashlib.sha256(b"repro secagg query" + challenge).digest(), 64)
    points = list(dict.fromkeys(int(word) for word in stream if word >= _NODES))[:QUERIES]
    key = hashlib.sha256(b"repro secagg weights" + challenge).digest()
    return points, blinding(key, QUERIES * count).reshape(QUERIES, count)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n, k) · (m, k)ᵀ modulo p, k at most 2¹⁵: in two halves, so that no sum leaves 64 bits."""
    low, high = right & np.uint64(0xFFFF), right >> np.uint64(16)
    modulus = np.uint64(P)
    upper = (left @ high.T) % modulus
    result: np.ndarray = (upper * np.uint64(1 << 16) + left @ low.T) % modulus
    return result


def _powers(count: int) -> np.ndarray:
    return np.uint64(1) << np.arange(count, dtype=np.uint64)


def _centred(elements: np.ndarray) -> list[int]:
    return [int(one) - P if int(one) > P // 2 else int(one) for one in elements]


@cache
def _extension() -> np.ndarray:
    """(nodes of h that f is not given at, nodes that f is given at)."""
    return np.stack([_lagrange(point, _KNOWN) for point in range(_KNOWN, _NODES)])


@lru_cache(maxsize=256)  # all parties ask for the same points
def _lagrange(point: int, nodes: int) -> np.ndarray:
    """(nodes,): the weights of a polynomial's values at 0 … nodes − 1 in its value at ``point``."""
    # Π (point − other) over the others: products of those before and of those after.
    before, after = [1], [1]
    for node in range(nodes):
        before.append(before[-1] * (point - node) % P)
        after.append(after[-1] * (point - (nodes - 1 - node)) % P)
    weights = [
        before[node] * after[nodes - 1 - node] % P * scale % P
        for node, scale in enumerate(_scales(nodes))
    ]
    return np.array(weights, np.uint64)


@cache
def _scales(nodes: int) -> list[int]:
    """1 / Π (node − other) over the others, for each node."""
    below = [
        (-1) ** (nodes - 1 - node) * factorial(node) * factorial(nodes - 1 - node)
        for node in range(nodes)
    ]
    return [pow(one, -1, P) for one in below]
