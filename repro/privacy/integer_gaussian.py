"""Integer Gaussian noise, fast: narrow discrete Gaussians from a table, widened by convolution.

``discrete_gaussian`` (Canonne, Kamath, Steinke 2020) is exact and takes 10 µs a number, too slow
where every party makes noise at every step. Here a number is Σ_l m_l·x_l of two or three
independent x_l ~ N_Z(0, 256²) (Micciancio & Walter 2017, ePrint 2017/259, section 4.2), each
looked up in a table by 32 random bits. No floating-point number decides anything.

How far from N_Z(0, σ²) that is, as the largest |log ratio| of probabilities, ``LOG_RATIO``:
for z = m·y + x with y ~ N_Z(0, s²), x ~ N_Z(0, b²) and σ² = m²s² + b²,

    Pr[z] ∝ e^(−z²/2σ²) · Σ_y e^(−(y − c)²/2ς²),   ς = s·b/σ, c some real number,

and by Poisson summation the sum is ς√2π·(1 ± ϑ) whatever c is, with ϑ = 2 Σ_{k≥1} e^(−2π²ς²k²).
All multipliers are at most b/4, so ς > 3.99, ϑ < 1e-136 a convolution.
The table is that of 2⁻¹⁶⁰ fixed point: a total variation below 1e-44 a number (``TABLE_ERROR``).
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from repro.checks import Number, check_count, check_word64
from repro.errors import InputError
from repro.randomness import philox4x32_blocks

BASE = 256  # b: deviation of the table's distribution
_LARGEST_MULTIPLIER = BASE // 4
_TAIL = 15 * BASE  # what lies beyond 15 deviations, 1e-50, is left out
_PRECISION = 160  # bits of the table
_GUIDE_BITS = 18
_CHUNK = 1 << 15  # numbers made at once: they stay in the cache, four times as fast
LOG_RATIO = 1e-135  # bound on |log(Pr / Pr of the discrete Gaussian)| of a number; see above
TABLE_ERROR = 1e-44  # bound on the total variation that a number's table look-ups add


@dataclass(frozen=True)
class Width:
    """A deviation that can be made: σ² = 256²·(1 + m₁²·(1 + m₂²·(…))), multipliers up to 64.

    multipliers: one number less than there are table look-ups; the innermost last.
    """

    multipliers: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.multipliers) > 3 or not all(
            1 <= m <= _LARGEST_MULTIPLIER for m in self.multipliers
        ):
            raise InputError(
                "multipliers", self.multipliers, f"up to three whole numbers up to {BASE // 4}"
            )

    @property
    def variance(self) -> int:
        """σ², in squared grid steps; exact."""
        total = BASE**2
        for m in reversed(self.multipliers):
            total = BASE**2 + m**2 * total
        return total

    @property
    def deviation(self) -> float:
        return math.sqrt(self.variance)

    @classmethod
    def at_most(cls, deviation: Number) -> Width:
        """The largest width up to ``deviation``, in grid steps, at least 256."""
        best = cls(())
        if not deviation >= BASE:
            raise InputError("deviation", deviation, f"at least {BASE} grid steps")
        inner: tuple[int, ...] = ()
        for _ in range(3):
            square = cls(inner).variance
            m = math.isqrt(max(0, int(min(deviation, 1e30) ** 2) - BASE**2) // square)
            if m == 0:
                break
            best = cls((min(m, _LARGEST_MULTIPLIER), *inner))
            if m <= _LARGEST_MULTIPLIER:
                break
            inner = best.multipliers
        return best


def integer_gaussian(count: int, width: Width, *, seed: int, step: int) -> np.ndarray:
    """(count,) int64 draws of N_Z(0, width.variance), Pr[x] ∝ exp(−x²/2σ²), to ``LOG_RATIO``.

    seed, step: 0 … 2⁶⁴ − 1; the same pair gives the same numbers, so never use one twice.
    """
    count = check_count("count", count, least=0)
    seed, step = check_word64("seed", seed), check_word64("step", step)
    # Its own key, unrelated to the continuous noise's at any step.
    message = b"integer gaussian" + seed.to_bytes(8, "little") + step.to_bytes(8, "little")
    key = int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")
    # Words 0 … count − 1 of the key's stream are the outermost draws, the last the innermost.
    total = np.empty(count, np.int64)
    for start in range(0, count, _CHUNK):
        part = total[start : start + _CHUNK]
        part[:] = _draws(len(width.multipliers) * count + start, len(part), key)
        for nth, m in reversed(list(enumerate(width.multipliers))):
            part *= m
            part += _draws(nth * count + start, len(part), key)
    return total


def _draws(first: int, count: int, key: int) -> np.ndarray:
    """(count,) int64 draws of N_Z(0, 256²), from words ``first``, ``first`` + 1, … of the key."""
    skipped = first % 4
    blocks = -(-(skipped + count) // 4)
    words = philox4x32_blocks(first // 4, blocks, 0, (key & 0xFFFFFFFF, key >> 32)).reshape(-1)
    return _looked_up(words[skipped : skipped + count], key, first)


def _looked_up(words: np.ndarray, key: int, first: int = 0) -> np.ndarray:
    """(n,) uniform 32-bit words, int64 -> (n,) int64 draws of N_Z(0, 256²).

    first: the number of the first word in the key's stream.
    """
    table = _table()
    result = table.guide.take(words >> (32 - _GUIDE_BITS)).astype(np.int64)
    unsure = np.flatnonzero(result == _UNSURE)
    if len(unsure):
        few = words[unsure]
        low = np.searchsorted(table.high, few, side="left")
        result[unsure] = low - _TAIL
        # 32 bits do not decide where they equal a threshold's: draw the rest of the word.
        for place in unsure[low != np.searchsorted(table.high, few, side="right")]:
            more = hashlib.blake2b(
                (first + int(place)).to_bytes(8, "little"),
                key=key.to_bytes(8, "little"),
                digest_size=_PRECISION // 8 - 4,
            ).digest()
            whole = int(words[place]) << (_PRECISION - 32) | int.from_bytes(more, "little")
            result[place] = bisect_right(table.thresholds, whole) - _TAIL
    return result


_UNSURE = np.int16(-(2**15))


@dataclass(frozen=True)
class _Table:
    """Inversion: the draw is the number of thresholds at or below a uniform word, less the tail."""

    thresholds: list[int]  # Pr[x ≤ k − tail], k = 0 …, in units of 2⁻¹⁶⁰; the last, 1, left out
    high: np.ndarray  # (thresholds,) int64, their first 32 bits
    guide: np.ndarray  # (2¹⁸,) int16, the draw where the first 18 bits decide it


@lru_cache(maxsize=1)
def _table() -> _Table:
    one = 1 << _PRECISION
    with localcontext() as context:
        context.prec = 60
        half = [(Decimal(-k * k) / Decimal(2 * BASE * BASE)).exp() for k in range(_TAIL + 1)]
        whole = half[0] + 2 * sum(half[1:])
        masses = [int(half[abs(k)] / whole * one) for k in range(-_TAIL, _TAIL + 1)]
    masses[_TAIL] += one - sum(masses)  # roundings, each below one unit, to the middle
    thresholds, so_far = [], 0
    for mass in masses[:-1]:
        so_far += mass
        thresholds.append(so_far)
    high = np.array([t >> (_PRECISION - 32) for t in thresholds], dtype=np.int64)
    shift = 32 - _GUIDE_BITS
    first = np.arange(1 << _GUIDE_BITS, dtype=np.int64) << shift
    low = np.searchsorted(high, first, side="left")
    beyond = np.searchsorted(high, first + (1 << shift) - 1, side="right")
    guide = np.where(low == beyond, low - _TAIL, _UNSURE).astype(np.int16)
    return _Table(thresholds, high, guide)
