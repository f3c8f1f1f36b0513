"""Integers summed as they are: for vectors that already are whole numbers, noise included.

Hospital i sends its int64 vector modulo p; the sum is read as the representative closest to
zero. Where noise of unbounded support is added before masking (the distributed discrete
Gaussian of Kairouz et al., ICML 2021), an element beyond the field wraps around: reduction
modulo p is a homomorphism, so what the server sees is (Σ v_i) mod p, a function of the sum
alone, and the privacy of the sum is unharmed by it. Only accuracy suffers, with the
probability that the sum leaves ± (p − 1)/2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from repro.checks import check_above_zero, check_counts, check_one_of
from repro.errors import InputError
from repro.secagg.encoding import Decoded, check_field, check_hospitals
from repro.secagg.errors import ImpossibleSum
from repro.secagg.field import Field, blocks


@dataclass(frozen=True)
class IntegerEncoding:
    """Every hospital counts alike; an integer of 1 stands for ``scale``.

    hospitals: the most that can be summed. magnitude: public bound on what an honest hospital's
    coordinate reaches (for noise: so far out that it never matters); a sum of S that goes
    beyond S·magnitude is refused as impossible. 0: the largest with which no sum of bounded
    vectors can wrap, ⌊(p − 1)/(2K)⌋. Larger ones are bad input.
    """

    field: Field
    hospitals: int
    magnitude: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_field(self.field)
        check_hospitals(self, self.field)
        check_counts(self, magnitude=0)
        room = (self.field.modulus - 1) // (2 * self.hospitals)
        if self.magnitude > room:
            raise InputError("magnitude", self.magnitude, f"0 to {room}: no sum may wrap")
        if self.magnitude == 0:
            object.__setattr__(self, "magnitude", room)
        check_above_zero(self, "scale")

    @property
    def extra(self) -> int:
        return 0

    def canonical(self) -> bytes:
        numbers = (self.field.bits, self.hospitals, self.magnitude)
        return b"integers v2" + struct.pack("<3Qd", *numbers, self.scale)

    def check(self, vector: np.ndarray, weight: int) -> None:
        if vector.ndim != 1 or vector.dtype.kind not in "iu":
            given = f"{vector.shape} of {vector.dtype}"
            raise InputError("vector", given, "one dimension of integers")
        check_one_of("weight", weight, (1,), "1: all hospitals count alike here")

    def encode(
        self, vector: np.ndarray, weight: int, rounding_key: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """(P,) integers -> (P,) field elements, modulo p. rounding_key: not used, nothing is."""
        self.check(vector, weight)
        encoded = self.field.zeros(len(vector)) if out is None else out
        wide = np.uint64 if vector.dtype.kind == "u" else np.int64
        for part in blocks(len(vector)):
            encoded[part] = np.mod(vector[part].astype(wide), wide(self.field.modulus))
        return encoded

    def centred(self, total: np.ndarray) -> np.ndarray:
        """(P,) field elements -> (P,) int64: the representatives in ±(p − 1)/2."""
        whole = total.astype(np.int64)
        whole[whole > self.field.modulus // 2] -= self.field.modulus
        return whole

    def decode(self, total: np.ndarray, survivors: int) -> Decoded:
        """mean: scale × sum / survivors. Raises ImpossibleSum beyond survivors × magnitude."""
        whole = self.centred(total)
        bound = survivors * self.magnitude
        if int(np.abs(whole).max()) > bound:
            what = f"a coordinate beyond ±{bound} in the sum of {survivors} hospitals"
            raise ImpossibleSum("decode", (), what)
        return Decoded(whole * (self.scale / survivors), survivors, 0, 0.0)
