"""How much noise each hospital adds, on which grid, so that the sum is as private as planned.

A total over hospitals, Σ_i s_i, of per-record contributions of L2 norm at most C. Hospital i
releases to the secure sum, in a field of p elements,

    x_i = round(s_i / γ) + N_Z(0, σ_g²)   mod p,

and the server reads γ · Σ x_i. With K hospitals, t of them colluding (they can subtract their own
shares) and d lost (their shares never arrive), m = K − t − d independent shares are left, so σ_g is
fixed by m·σ_g². What the proof needs (docs/shared-noise.md):

- **neighbours**: one record adds zero in one of them (zero-out). How many records there are is
  public: γ, below, leaves room for all of them;
- **rounding**: that record moves a coordinate of round(s_i/γ) by at most one step more than
  s_i/γ, so the L2 sensitivity is Δ = C + 2e + γ√P (Kairouz, Liu, Steinke 2021, arXiv 2102.06387,
  section 4, round at random instead and condition on a short result; here nothing is conditioned
  on); e bounds the L2 error of s_i's floating-point sum;
- **sums of discrete Gaussians**: within a factor e^±τ of N_Z(0, m·σ_g²) a coordinate, their
  Theorem 1 (Proposition 14), τ = 10 Σ_{k=1}^{m−1} e^(−2π²σ_g²·k/(k+1));
- **discrete against continuous**: N_Z(u, v) is, within a factor e^±2ϑ, N(u, v − r²) passed through
  a randomised rounding (Peikert 2010, CRYPTO, Theorem 3.1, for the integers), ϑ ≈ 2e^(−2π²r²).
  With r = 2 steps that costs r²/v of the variance, and then every accountant of the continuous
  Gaussian applies, subsampled and composed;
- **wrap**: reduction mod p is post-processing of the integer sum, so it costs no privacy. It would
  cost accuracy, so γ leaves room for the largest sum and ``TAIL`` deviations of noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from repro.accounting import GaussianEvent, PoissonSampledGaussianEvent, PrivacyEvent
from repro.checks import Number, check_above_zero, check_counts, check_zero_or_above
from repro.errors import InputError
from repro.privacy.integer_gaussian import BASE, LOG_RATIO, TABLE_ERROR, Width
from repro.privacy.sampling import check_sample_rate
from repro.secagg import Field

SMOOTHING = 2.0  # r, in grid steps
TAIL = 14.0  # deviations of the summed noise within the field: beyond lie 2e-44 a coordinate
_LARGEST_TOTAL = 2.0**40  # grid steps: float64 then finds the nearest one to 2^-12
_MOST_LOG_RATIO = 1e-12  # of a release: what the accountants round up by is more
_ROUNDING = 1 + 2.0**-10  # steps that rounding adds to a difference of two sums, at most


@dataclass(frozen=True)
class NoisePlan:
    """Fixed before any data is touched; every field is public.

    hospitals: K. dimension: P, coordinates of a total. sensitivity: C, the most that one record
    adds to the total, in L2. noise_multiplier: z, deviation over sensitivity that is left against
    the planned coalition after the planned drop-outs. colluders: t, hospitals that may pool what
    they know (with the server or without); drop_outs: d, hospitals that may be lost in one sum.
    largest_sum: bound on any coordinate's |Σ_i s_i| (C times all records, if each may take part).
    sample_rate: probability with which its hospital draws a record for a sum; 1: always.
    sum_error: e, bound on the L2 error of a hospital's floating-point sum.
    field_bits: 31 or 61, the field that is summed in.
    """

    hospitals: int
    dimension: int
    sensitivity: Number
    noise_multiplier: Number
    largest_sum: Number
    colluders: int = 1
    drop_outs: int = 0
    sum_error: Number = 0.0
    field_bits: int = 31
    sample_rate: Number = 1.0

    def __post_init__(self) -> None:
        check_counts(self, hospitals=1, dimension=1, colluders=0, drop_outs=0)
        check_above_zero(self, "sensitivity", "noise_multiplier", "largest_sum")
        check_zero_or_above(self, "sum_error")
        object.__setattr__(self, "sample_rate", check_sample_rate(self.sample_rate))
        for name in ("hospitals", "dimension"):
            if getattr(self, name) > 2**53:  # the bounds below are floating-point numbers
                raise InputError(name, getattr(self, name), "at most 2^53")
        if self.shares < 1:
            raise InputError(
                "colluders + drop_outs",
                self.colluders + self.drop_outs,
                f"fewer than the {self.hospitals} hospitals: somebody's noise must be left",
            )
        if self.log_ratio > _MOST_LOG_RATIO:  # and a field too narrow is found here
            raise InputError(
                "dimension",
                self.dimension,
                f"fewer: {_MOST_LOG_RATIO:g} is the most in ε a release",
            )

    @property
    def shares(self) -> int:
        """m: the noise shares that are sure to be in the sum and unknown to the coalition."""
        return self.hospitals - self.colluders - self.drop_outs

    @property
    def least_survivors(self) -> int:
        """Fewer hospitals than this in a sum are more drop-outs than planned: no release."""
        return self.hospitals - self.drop_outs

    @cached_property
    def width(self) -> Width:
        """σ_g, the deviation of one share in grid steps: the finest grid that the field holds."""
        modulus = Field(self.field_bits).modulus
        best = None
        guess = modulus / 2.0
        while guess >= BASE:
            width = Width.at_most(guess)
            if self._fits(width, modulus):
                best = width
                break
            guess = width.deviation * (1 - 1e-12)
        if best is None:
            raise InputError(
                "field_bits",
                self.field_bits,
                f"a wider field: sums up to {self.largest_sum:g} at noise {self.noise_multiplier:g}"
                f" × {self.sensitivity:g} leave fewer than {BASE} grid steps a share",
            )
        return best

    def _fits(self, width: Width, modulus: int) -> bool:
        granularity = self._granularity(width)
        if granularity <= 0:
            return False
        # Rounding adds at most half a step a hospital.
        signal = self.largest_sum / granularity + self.hospitals / 2
        noise = TAIL * math.sqrt(self.hospitals) * width.deviation
        return signal + noise < min(modulus / 2, _LARGEST_TOTAL)

    def _granularity(self, width: Width) -> float:
        """γ with √(m·σ_g² − r²)·γ = z·(C + 2e + γ√P); not positive where no grid is that fine."""
        left = math.sqrt(self.shares * width.variance - SMOOTHING**2)
        room = left - self.noise_multiplier * _ROUNDING * math.sqrt(self.dimension)
        if room <= 0:
            return 0.0
        return self.noise_multiplier * (self.sensitivity + 2 * self.sum_error) / room

    @cached_property
    def granularity(self) -> float:
        """γ, the grid step, in units of the total."""
        return self._granularity(self.width)

    @property
    def share_deviation(self) -> float:
        """Deviation of one hospital's noise, in units of the total."""
        return self.granularity * self.width.deviation

    @property
    def grid_sensitivity(self) -> float:
        """Δ = C + 2e + γ√P: L2, of the rounded total, in its units."""
        rounding = self.granularity * _ROUNDING * math.sqrt(self.dimension)
        return self.sensitivity + 2 * self.sum_error + rounding

    def multiplier(self, shares: int) -> float:
        """The noise multiplier of the continuous Gaussian that ``shares`` honest shares amount to.

        Rounded down. 0 shares: 0, no privacy. ``multiplier(self.shares)`` is the planned one.
        """
        if shares <= 0:
            return 0.0
        deviation = math.sqrt(shares * self.width.variance - SMOOTHING**2) * self.granularity
        return deviation / self.grid_sensitivity * (1 - 1e-14)

    def event(self, shares: int) -> PrivacyEvent:
        """What one release costs a record, against whoever does not know so many shares.

        At rate 1 the exact Gaussian. Unit: record; zero-out, as add/remove one.
        """
        multiplier = self.multiplier(shares)
        if self.sample_rate == 1:
            return GaussianEvent(multiplier)
        return PoissonSampledGaussianEvent(multiplier, self.sample_rate)

    @property
    def log_ratio(self) -> float:
        """Bound on |log ratio| of a release's density to the post-processed continuous mechanism's.

        P coordinates of τ, 2ϑ and the sampler's own. ε is larger by at most twice this a release.
        """
        # k/(k + 1) is at least 1/2. ``BASE`` is the narrowest share there is: e^(−π²·256²) is below
        # 10⁻²⁸⁰⁰⁰⁰, so τ is 0 in float64.
        tau = 10 * self.hospitals * math.exp(-(math.pi**2) * float(self.width.variance))
        smoothing = 2 * 2.001 * math.exp(-2 * math.pi**2 * SMOOTHING**2)
        return self.dimension * (tau + smoothing + self.hospitals * LOG_RATIO)

    @property
    def delta_slack(self) -> float:
        """What the sampler's finite table adds to δ, a release."""
        return self.dimension * self.hospitals * 4 * TABLE_ERROR

    def facts(self) -> dict[str, Any]:
        """What a run's record says of the plan."""
        return {
            "hospitals": self.hospitals,
            "colluders": self.colluders,
            "drop_outs": self.drop_outs,
            "noise_multiplier": self.noise_multiplier,
            "granularity": self.granularity,
            "share_deviation_in_steps": self.width.deviation,
            "rounding_cost": self.grid_sensitivity / self.sensitivity - 1,
            "field_bits": self.field_bits,
            "log_ratio": self.log_ratio,
        }
