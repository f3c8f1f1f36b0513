"""Fixed-point encoding of a weighted vector into field elements, with a stated error bound.

Coordinate j of hospital i becomes the integer closest to n_i·x_ij·h/(R·W), where R is the
clip range, W the largest weight allowed and h the half range, stochastically rounded and moved
to [0, 2h]. With h = ⌊(p − 1)/(2K)⌋ the sum over K hospitals is at most K·2h < p: overflow is
impossible by arithmetic. Two more coordinates carry n_i and how many values were clipped, so
that neither is ever seen of one hospital.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from repro.checks import check_above_zero, check_count, check_counts, check_word64
from repro.errors import InputError
from repro.secagg.errors import ImpossibleSum
from repro.secagg.field import BLOCK, Field, blocks
from repro.secagg.masks import WordSource, chacha20_words

EXTRA = 2  # coordinates behind the vector: the weight, the number of clipped values
# float64 has 53 bits: above this half range its spacing would show in the rounding.
_MAX_HALF_RANGE = 1 << 44
_SMALLEST_RANGE = float(np.finfo(np.float32).tiny)
_LARGEST_RANGE = float(np.finfo(np.float32).max)
# What float64 arithmetic can add to an error bound made of real numbers, relatively.
_SLACK = 1 + 2.0**-20


@dataclass(frozen=True)
class Decoded:
    """What a sum of encoded vectors says. mean: (P,) float64, Σ n_i·x_i / Σ n_i."""

    mean: np.ndarray
    weight: int
    clipped_count: int
    max_error_bound: float


@runtime_checkable
class VectorEncoding(Protocol):
    """What a round needs of an encoding: part of its public settings, the same for everybody.

    Two are here: ``Encoding`` (weighted, fixed-point) and ``integers.IntegerEncoding``.
    """

    @property
    def field(self) -> Field: ...

    @property
    def hospitals(self) -> int:
        """The most whose vectors can be summed."""

    @property
    def extra(self) -> int:
        """Field elements behind the vector's own."""

    def canonical(self) -> bytes:
        """Everything that decides what an element means, as bytes: bound into the context."""

    def check(self, vector: np.ndarray, weight: int) -> None:
        """Raise InputError for what cannot be encoded."""

    def encode(
        self, vector: np.ndarray, weight: int, rounding_key: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """(P,) -> (P + extra,) reduced field elements, in ``out`` if given."""

    def decode(self, total: np.ndarray, survivors: int) -> Decoded:
        """From the field sum of ``survivors`` encoded vectors; ImpossibleSum if it is none."""


@dataclass(frozen=True)
class Encoding:
    """How vectors become field elements.

    hospitals: the most that can be summed. clip_range: R; values beyond ±R are clipped and
    counted. max_weight: W; a larger weight is an error, so choose a public bound, and choose it
    close: the step of a coordinate is proportional to it. levels: values a coordinate may take,
    2h + 1; None for as many as the field has room for, fewer for coarser quantisation.
    """

    field: Field
    hospitals: int
    clip_range: float = 8.0
    max_weight: int = 10_000
    levels: int | None = None

    def __post_init__(self) -> None:
        check_field(self.field)
        check_hospitals(self, self.field)
        if self.levels is not None:
            check_counts(self, levels=3)  # one below zero, zero, one above
        check_above_zero(self, "clip_range")
        if not _SMALLEST_RANGE <= self.clip_range <= _LARGEST_RANGE:
            raise InputError("clip_range", self.clip_range, "a finite float32 above 0")
        check_counts(self, max_weight=1)
        if self.max_weight > self.largest_summand:
            raise InputError(
                "max_weight",
                self.max_weight,
                f"1 to {self.largest_summand}, so that {self.hospitals} weights sum up in the "
                f"{self.field.bits}-bit field",
            )

    @property
    def largest_summand(self) -> int:
        """Of any coordinate: K of these sum up below the modulus."""
        return (self.field.modulus - 1) // self.hospitals

    @property
    def half_range(self) -> int:
        """h: coordinates are encoded in [0, 2h], zero at h."""
        room = min(self.largest_summand // 2, _MAX_HALF_RANGE)
        return room if self.levels is None else min(room, (self.levels - 1) // 2)

    @property
    def limit(self) -> float:
        """R as a float32: then a float32 vector's values at ±R are exactly on the border."""
        return float(np.float32(self.clip_range))

    @property
    def step(self) -> float:
        """What one unit of a coordinate is worth, in units of n·x."""
        return self.limit * self.max_weight / self.half_range

    @property
    def extra(self) -> int:
        return EXTRA

    def canonical(self) -> bytes:
        numbers = (self.field.bits, self.hospitals, self.max_weight, self.half_range)
        return b"weighted fixed point v2" + struct.pack("<4Qf", *numbers, self.limit)

    def encode(
        self, vector: np.ndarray, weight: int, rounding_key: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """(P,) float32 or float64, its weight n -> (P + 2,) field elements.

        rounding_key: 64 bits, one for each (hospital, round); coordinate j uses the j-th 32-bit
        word of its ChaCha20 stream, so the result does not depend on block sizes.
        Raises InputError for a vector that is not finite or a weight outside 0 … W.
        """
        self.check(vector, weight)
        weight, rounding_key = int(weight), check_word64("rounding_key", rounding_key)
        encoded = self.field.zeros(len(vector) + EXTRA) if out is None else out
        draw, clipped = _rounding(rounding_key), 0
        words = np.empty(min(BLOCK, len(vector)), np.uint32)
        for part in blocks(len(vector)):
            drawn = words[: part.stop - part.start]
            draw(drawn)
            clipped += self._encode_block(vector[part], weight, drawn * 2.0**-32, encoded[part])
        encoded[-2] = weight
        encoded[-1] = min(clipped, self.largest_summand)
        return encoded

    def _encode_block(
        self, values: np.ndarray, weight: int, uniform: np.ndarray, out: np.ndarray
    ) -> int:
        if not np.isfinite(values).all():
            raise InputError("vector", "a value that is not finite", "finite numbers")
        clipped = int(np.count_nonzero(np.abs(values) > values.dtype.type(self.limit)))
        scaled = values.astype(np.float64)
        if clipped:
            np.clip(scaled, -self.limit, self.limit, out=scaled)
        scaled *= weight / self.step
        scaled += uniform
        np.floor(scaled, out=scaled)
        # x + u may round up to the next integer in float64; beyond ±h it would not be ours.
        np.clip(scaled, -self.half_range, self.half_range, out=scaled)
        scaled += self.half_range
        np.copyto(out, scaled, casting="unsafe")
        return clipped

    def decode(self, total: np.ndarray, survivors: int) -> Decoded:
        """The weighted mean of ``survivors`` encoded vectors from their field sum, (P + 2,).

        Raises ImpossibleSum where a public bound is broken, InputError if the survivors'
        weights sum up to zero, where no mean exists.
        """
        self._check_possible(total, survivors)
        weight, clipped = int(total[-2]), int(total[-1])
        if weight == 0:
            raise InputError("weights", 0, "survivors whose weights do not sum up to zero")
        mean = total[:-EXTRA].astype(np.float64)
        mean -= survivors * self.half_range
        mean *= self.step / weight
        return Decoded(mean, weight, clipped, self.error_bound(survivors, weight))

    def _check_possible(self, total: np.ndarray, survivors: int) -> None:
        """A sum with a uniform vector in it passes with probability Π (bound + 1) / p."""
        weight, clipped = int(total[-2]), int(total[-1])
        _at_most("a total weight", weight, survivors * self.max_weight, survivors)
        most = min(len(total) - EXTRA, self.largest_summand)
        _at_most("a count of clipped values", clipped, survivors * most, survivors)
        # |⌊n·x·h/(R·W) + u⌋| < n·h/W + 1 for |x| ≤ R; one more for float64's own rounding.
        reach = weight * self.half_range // self.max_weight + 2 * survivors
        reach = min(reach, survivors * self.half_range)
        middle = survivors * self.half_range
        low, high = int(total[:-EXTRA].min()), int(total[:-EXTRA].max())
        if low < middle - reach or high > middle + reach:
            where = f"a coordinate outside ±{self.clip_range:g} × the total weight"
            raise ImpossibleSum("decode", (), f"{where} in the sum of {survivors} hospitals")

    def error_bound(self, survivors: int, weight: int) -> float:
        """Largest |decoded mean − weighted mean of the clipped vectors|, in any coordinate.

        Stochastic rounding moves each summand by less than one step, so the sum by less than S
        steps: S·R·W / (h·Σn). For S = K, with h ≈ p/2K and n̄ = Σn/K: 2·K·R·(W/n̄)/p.
        The error is unbiased, with a standard deviation of at most √S/2 steps over Σn.
        """
        return survivors * self.step / weight * _SLACK

    def check(self, vector: np.ndarray, weight: int) -> None:
        """Raise InputError for a vector or weight that cannot be encoded (finiteness aside)."""
        if vector.ndim != 1 or vector.dtype not in (np.float32, np.float64):
            given = f"{vector.shape} of {vector.dtype}"
            raise InputError("vector", given, "one dimension of float32 or float64")
        if check_count("weight", weight, least=0) > self.max_weight:
            raise InputError("weight", weight, f"a whole number from 0 to {self.max_weight}")


def check_field(field: Field) -> None:
    if not isinstance(field, Field):
        raise InputError("field", field, "a Field of 31 or 61 bits")


def check_hospitals(encoding: VectorEncoding, field: Field) -> None:
    """A number of hospitals with room for a step either way in the field."""
    check_counts(encoding, hospitals=1)
    most = (field.modulus - 1) // 2
    if encoding.hospitals > most:
        raise InputError("hospitals", encoding.hospitals, f"1 to {most}, for {field.bits} bits")


def _at_most(what: str, value: int, bound: int, survivors: int) -> None:
    if value > bound:
        of = f"of {survivors} hospitals is {value}; at most {bound} is possible"
        raise ImpossibleSum("decode", (), f"{what} {of}")


def _rounding(key: int) -> WordSource:
    """Uniform words for one vector, six times as fast as by this project's Philox."""
    message = b"stochastic rounding" + key.to_bytes(8, "little")
    return chacha20_words(hashlib.blake2b(message, digest_size=32).digest())
