"""Prime fields GF(2ⁿ − 1) on NumPy arrays, one element a machine word.

31 bits: 4 bytes a coordinate, as much as a float32. 61 bits: where more hospitals, larger
weights or finer levels are wanted. Both moduli are Mersenne primes; the sum of two elements
fits the word, so one subtraction reduces it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro.checks import check_one_of
from repro.secagg.errors import Refused

# Words handled at a time: operands and scratch stay in a core's level-2 cache.
BLOCK = 1 << 16

BITS = 31, 61


@dataclass(frozen=True)
class Field:
    """GF(2^bits − 1). bits: 31 or 61."""

    bits: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", check_one_of("field_bits", self.bits, BITS, "31 or 61"))

    @property
    def modulus(self) -> int:
        return (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype:
        """Little-endian on the wire and in memory: uint32 or uint64."""
        return np.dtype("<u4" if self.bits == 31 else "<u8")

    def zeros(self, length: int) -> np.ndarray:
        return np.zeros(length, dtype=self.dtype)

    def add_into(self, total: np.ndarray, addend: np.ndarray) -> None:
        """``total ← total + addend``. Both (n,) with elements below the modulus."""
        scratch = np.empty(min(BLOCK, len(total)), self.dtype)
        for part in blocks(len(total)):
            self.add_block(total[part], addend[part], scratch)

    def subtract_into(self, total: np.ndarray, subtrahend: np.ndarray) -> None:
        """``total ← total − subtrahend``. Both (n,) with elements below the modulus."""
        scratch = np.empty(min(BLOCK, len(total)), self.dtype)
        for part in blocks(len(total)):
            self.subtract_block(total[part], subtrahend[part], scratch)

    def add_block(self, total: np.ndarray, addend: np.ndarray, scratch: np.ndarray) -> None:
        """``add_into`` for at most ``len(scratch)`` elements; scratch may be the addend."""
        # Without a branch: where the sum is below p, subtracting p wraps around to something
        # larger, so the smaller of the two is the reduced one either way.
        reduced = scratch[: len(total)]
        np.add(total, addend, out=total)
        np.subtract(total, self.dtype.type(self.modulus), out=reduced)
        np.minimum(total, reduced, out=total)

    def subtract_block(
        self, total: np.ndarray, subtrahend: np.ndarray, scratch: np.ndarray
    ) -> None:
        """``subtract_into`` for at most ``len(scratch)`` elements; scratch may be subtrahend."""
        # Where the difference is negative it wraps to something huge, and adding p mends it.
        reduced = scratch[: len(total)]
        np.subtract(total, subtrahend, out=total)
        np.add(total, self.dtype.type(self.modulus), out=reduced)
        np.minimum(total, reduced, out=total)

    def check(self, elements: np.ndarray) -> None:
        """Refuse a vector that holds anything but reduced field elements."""
        if elements.dtype != self.dtype:
            raise Refused(f"vector of {elements.dtype}; expected {self.dtype}")
        if len(elements) and int(elements.max()) >= self.modulus:
            raise Refused(f"vector holds a value that is not below 2^{self.bits} - 1")


def blocks(length: int) -> list[slice]:
    """Consecutive slices of at most ``BLOCK`` that cover ``range(length)``."""
    return [slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
