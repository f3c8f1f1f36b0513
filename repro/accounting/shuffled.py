r"""A bound from below on ε of shuffled passes: what no proof about data loaders can go under.

A pass has k steps; every record is in exactly one of them, a random one. Let all other records'
gradients be 0 and blank out one whose gradient has the clip norm. The k noised sums are then
N(0, σ²) in its direction, or one of them, whichever, is N(1, σ²). Look at each pass for a sum
above τσ: with μ = 1/σ

    P(seen) = 1 − Φ(τ)^{k−1}·Φ(τ − μ),    Q(seen) = 1 − Φ(τ)^k,

as Chua, Ghazi, Kamath, Kumar, Manurangsi, Sinha, Zhang 2024 (arXiv 2403.17673) do for one pass.
Passes are independent, so how many of them were seen is binomial on both sides, and for every
set S of outcomes δ ≥ P(S) − e^ε·Q(S) (the definition): ε ≥ log((P(S) − δ)/Q(S)). Looking less
closely than one could only makes the bound smaller, never wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from repro.accounting import checks
from repro.accounting.checks import Number
from repro.shapes import Float

_THRESHOLDS = 160
_LEAST = 41  # numbers of passes tried at each threshold, within 8 deviations of the mean
_ALLOWANCE = 1e-6  # for the rounding of incomplete beta functions, relative
_NEARLY = 1e-9  # rates like 1/3 are not exact
_LARGEST_MU = 1e150  # more noise than there is makes the bound smaller, so it still holds


@dataclass(frozen=True)
class Passes:
    """Steps as passes over the data: ``full`` ones of ``batches`` steps each, at ``most`` so many
    of which any one record is in, the unfinished ones included."""

    full: int
    batches: int
    most: int

    @classmethod
    def of(cls, steps: Number, rate: Number, rounds: Number = 1) -> Passes:
        """Of ``rounds`` times ``steps`` steps, each on ``rate`` in [0, 1] of the records.

        Whether a round goes on with the pass of the one before or begins another is not known:
        ``full`` and ``most`` hold for both.
        """
        steps, rounds = checks.count("steps", steps), checks.count("rounds", rounds)
        rate = checks.real("rate", rate, lambda x: 0 <= x <= 1, "a probability, from 0 to 1")
        if rate == 0:
            return cls(0, 1, 0)
        batches = math.ceil(Fraction(1 - _NEARLY) / Fraction(rate))
        return cls(rounds * (steps // batches), batches, rounds * -(-steps // batches))


def shuffled_lower_epsilon(noise_multiplier: Number, passes: Passes, delta: Number) -> float:
    """An ε that the truth is not below, rounded down; ∞ without noise, 0 without a full pass.

    noise_multiplier: noise ÷ clip norm. Under zero-out, and under replace-one, of which a record
    with gradient 0 in the place of another is a case.
    """
    sigma, delta = checks.noise_multiplier(noise_multiplier), checks.delta(delta)
    if passes.full == 0:
        return 0.0
    if sigma == 0:
        return math.inf
    from scipy.special import log_ndtr  # here, so that importing the accountant stays cheap

    mu, k = min(1 / sigma, _LARGEST_MU), passes.batches
    taus = np.linspace(-2.0, mu + 9.0, _THRESHOLDS) if mu < 40 else mu * np.linspace(0.1, 1, 19)
    none = k * log_ndtr(taus)
    none_with = (k - 1) * log_ndtr(taus) + log_ndtr(taus - mu)
    removed = _best(-np.expm1(none_with), np.exp(none_with), -np.expm1(none), passes.full, delta)
    added = _best(np.exp(none), -np.expm1(none), np.exp(none_with), passes.full, delta)
    return max(removed, added, 0.0) * (1 - 1e-9)


def _best(
    likely: Float[np.ndarray, " thresholds"],
    unlikely: Float[np.ndarray, " thresholds"],
    other: Float[np.ndarray, " thresholds"],
    passes: int,
    delta: float,
) -> float:
    """The largest log((P(X ≥ m) − δ)/Q(X ≥ m)), X ~ Bin(passes, ``likely``) or (…, ``other``).

    unlikely: 1 − likely, exact where that is small.
    """
    from scipy.special import betainc

    spread = np.sqrt(passes * likely * unlikely)[:, None]
    middle = (passes * likely)[:, None] + spread * np.linspace(-8, 8, _LEAST)
    m = np.clip(np.ceil(middle), 1, passes)
    with np.errstate(all="ignore"):
        # P(X ≥ m) is the regularised incomplete beta function I_p(m, n − m + 1).
        here = betainc(m, passes - m + 1, likely[:, None]) * (1 - _ALLOWANCE)
        there = betainc(m, passes - m + 1, other[:, None]) * (1 + _ALLOWANCE)
        usable = (here > delta) & (there > 1e-290)
        found = np.log((here - delta) / there)
    return float(np.max(found, where=usable, initial=0.0))
