"""What a norm proof promises: from a few random projections, a bound on the whole vector.

x: a hospital's vector modulo p = 2³¹ − 1, fixed before the members' nonces draw a matrix R of m
rows over {−1, 0, 1} with probabilities ¼, ½, ¼. What is proved, without being shown, of
z = R·x mod p (read as numbers closest to zero) is

    −T ≤ z_j < T for every row j,      Σ_j ⌊z_j / 2ˢ⌋² ≤ S.

**Theorem.** A vector with ‖x‖₂ above ``proved`` passes with probability at most ``error``.
Below, v is ⟨r, x⟩ for one row r.

(a) *Some |x_k| > 2T.* Whatever the rest of the row, v is c − x_k, c or c + x_k modulo p with
probability ¼, ½, ¼. The middle one is more than 2T from the others, so either it alone can be
within T of zero, or only the others: a row passes with probability at most ½.
(b) *All |x_k| ≤ 2T, ‖x‖ > βT.* Add up coordinates until their norm is at least βT; then it is at
most √(β² + 4)·T. Fix the rest of the row: it moves v by a constant. With the kernel
κ·(sin(au/2)/(au/2))², a = π/2, κ = ((a/2)/sin(a/2))², which is at least 1 for |u| ≤ 1 and has a
triangle on [−a, a] for a Fourier transform (Esseen's argument), and with E e^{itr} = cos²(t/2)
≤ exp(−t²/4) for |t| ≤ π, v is in a given window of 2T with probability at most κ·(2/π)·2√π/β,
which is ½ for β = 8κ/√π. Modulo p there are more windows, p apart: all but one are at least
p/2 − T away, where v, sub-Gaussian with variance ‖x‖²/2, is with probability at most
2·exp(−(p/2 − T)²/((β² + 4)T²)).
(c) *‖x‖ ≤ βT.* v wraps around p with probability at most 2·exp(−(p/2)²/(βT)²). Where no row does,
E v² = ‖x‖²/2 =: w and E v⁴ ≤ 3w², so E exp(−θv²/w) ≤ 1 − θ + 3θ²/2 (Achlioptas, J. Comput. Syst.
Sci. 2003), and Σ v² ≤ η·m·w with probability at most
min_θ (e^{θη}·(1 − θ + 3θ²/2))^m.

The modular half is the idea of Gentry, Halevi and Lyubashevsky (Eurocrypt 2022) and
of the wraparound checks of PINE (Rothblum et al., arXiv 2311.10237), with constants of our own.

**Completeness.** An honest vector, ‖x‖₂ ≤ ``norm``, fails with probability at most ``failure``:
v is sub-Gaussian, so |v| ≥ T with at most 2·exp(−T²/‖x‖²), and E exp(θv²/w) ≤ (1 − 2θ)^{−½}, so
Σ v² ≥ τ·m·w with at most (τ·e^{1−τ})^{m/2}.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import cached_property

from scipy.optimize import brentq, minimize_scalar

from repro.checks import check_above_zero, check_counts, check_fraction
from repro.errors import InputError
from repro.secagg.field import Field

FIELD = Field(31)  # the proof's products fit a 64-bit word
P = FIELD.modulus
_KAPPA = ((math.pi / 4) / math.sin(math.pi / 4)) ** 2
_BETA = 8 * _KAPPA / math.sqrt(math.pi)  # 5.57: half of the rows pass, see (b)
_ROOM = 85  # p ≥ 85·T: then what wraps around is rarer than 2⁻⁶⁰


@dataclass(frozen=True)
class NormBound:
    """The public bound of a round, in units of the hospitals' integers.

    norm: what an honest vector's Euclidean norm is at most. hospitals: the most that are summed.
    rows: m, 64 to 4,096; more make ``proved`` closer to ``norm`` and cost as much more.
    error, failure: largest probabilities that a vector above ``proved`` passes, and that an
    honest one fails. Raises InputError where the field is too small for norm and hospitals or the
    rows are too few for the error.
    """

    norm: float
    hospitals: int
    rows: int = 256
    error: float = 2.0**-40
    failure: float = 2.0**-20

    def __post_init__(self) -> None:
        check_above_zero(self, "norm")
        check_counts(self, hospitals=1, rows=64)
        for name in ("error", "failure"):
            check_fraction(name, getattr(self, name), zero=False)
        if self.rows > 4096:
            raise InputError("rows", self.rows, "64 to 4,096")
        least = _of_wrapping(self.rows)
        if self.error <= 2 * least:
            raise InputError("error", self.error, f"above {2 * least:.1e}, or more rows")
        if _ROOM * self.reach > P:
            largest = 2 ** math.floor(math.log2(P / _ROOM))  # T is a power of two
            most = largest / self._least_reach * self.norm
            raise InputError("norm", self.norm, f"at most {most:.4g}, so that no projection wraps")
        if self._eta <= 0:
            raise InputError("rows", self.rows, f"more, for an error of {self.error:.1e}")
        if self.hospitals * self.proved >= P / 2:
            most = P / 2 / self.hospitals * self.norm / self.proved
            expected = f"below {most:.4g}, so that {self.hospitals} vectors sum up in the field"
            raise InputError("norm", self.norm, expected)

    @property
    def reach(self) -> int:
        """T, a power of two."""
        return 1 << (self.bits - 1)

    @cached_property
    def bits(self) -> int:
        """b: z + T is b bits long."""
        return max(1, math.ceil(math.log2(self._least_reach))) + 1

    @property
    def _least_reach(self) -> float:
        return self.norm * math.sqrt(math.log(4 * self.rows / self.failure))

    @cached_property
    def shift(self) -> int:
        """s: the low bits of z that its square leaves out, so that Σ z² fits the field."""
        room = (30 - math.ceil(math.log2(self.rows))) // 2
        return max(0, self.bits - 1 - room)

    @cached_property
    def most(self) -> int:
        """S. Rounding z down to a multiple of 2ˢ moves √Σz² by less than 2ˢ·√m."""
        exponent = 2 * math.log(2 / self.failure) / self.rows
        tau = float(brentq(lambda t: t - 1 - math.log(t) - exponent, 1, 4 + 4 * exponent))
        root = math.sqrt(tau * self.rows / 2) * self.norm / self._unit + self._lost
        return max(1, math.floor(root**2))

    @property
    def slack_bits(self) -> int:
        """c: S minus the sum of squares is c bits long where it is not negative."""
        return max(1, self.most.bit_length())

    @cached_property
    def proved(self) -> float:
        """The bound on ‖x‖₂ that a vector which passes keeps, but for ``error``."""
        scale = math.sqrt(self._eta * self.rows / 2)
        return self._unit * (math.sqrt(self.most) + self._lost) / scale

    @cached_property
    def _eta(self) -> float:
        """η: the largest with (c) at half the error."""
        each = math.log(2 / self.error) / self.rows

        def negative(theta: float) -> float:
            return (each + math.log(1 - theta + 1.5 * theta * theta)) / theta

        found = minimize_scalar(negative, bounds=(1e-6, 0.666), method="bounded")
        return -float(found.fun)

    @property
    def _unit(self) -> float:
        return float(1 << self.shift)

    @property
    def _lost(self) -> float:
        return math.sqrt(self.rows) if self.shift else 0.0

    def canonical(self) -> bytes:
        """Everything a proof depends on, as bytes: bound into the round's context."""
        numbers = (self.hospitals, self.rows, self.bits, self.shift, self.most)
        return b"norm bound v1" + struct.pack("<5Qd", *numbers, self.norm)


def _of_wrapping(rows: int) -> float:
    """The probabilities of (a), (b) and of a wrap in (c), with p = 85·T."""
    far = 2 * math.exp(-((_ROOM / 2 - 1) ** 2) / (_BETA**2 + 4))
    wrap = 2 * rows * math.exp(-((_ROOM / 2 / _BETA) ** 2))
    return (0.5 + far) ** rows + wrap


def allowance(clip_norm: float, deviation: float, length: int, failure: float = 2.0**-20) -> float:
    """What ``norm`` has to be where a hospital adds its share of the noise before masking.

    clip_norm: of its update; deviation: of the discrete Gaussian in each of ``length``
    coordinates; both in units. Noise is longer than the result allows with at most ``failure``: it
    is sub-Gaussian (Canonne, Kamath and Steinke, NeurIPS 2020), so its squared norm has
    the tail of a χ² (Laurent and Massart, Ann. Statist. 2000, lemma 1). The larger
    √length·deviation is against clip_norm, the less the bound says: a liar may use all of it.
    """
    log = math.log(1 / failure)
    return clip_norm + deviation * math.sqrt(length + 2 * math.sqrt(length * log) + 2 * log)
