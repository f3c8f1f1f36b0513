"""Calibration: the noise that meets a target (ε, δ).

Every answer is checked with the accountant before it is returned, at exactly the float that is
returned: the smallest noise that holds, to a relative 1e-9, and never one that misses by rounding.

accountant, everywhere: "best" (the default: the smallest ε that any proof here gives), "rdp" or
"pld" (the privacy loss distribution) alone. PLD's ε jumps by up to 4e-4 relative where its grid
changes, so with it the smallest noise is found to about that only.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, REPLACE_ONE, Number
from repro.accounting.composition import BEST, compose_epsilon
from repro.accounting.events import (
    FixedBatchGaussianEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
)
from repro.errors import InputError

_TOLERANCE = 1e-9
_LARGEST_MULTIPLIER = 1e12
_FAR = 1e3


def subsampled_event(
    noise_multiplier: Number, sample_rate: Number, relation: str = ADD_REMOVE
) -> PrivacyEvent:
    """The step whose privacy is proved under ``relation``: Poisson, or fixed-size batches."""
    if checks.relation(relation) == REPLACE_ONE:
        return FixedBatchGaussianEvent(noise_multiplier, sample_rate)
    return PoissonSampledGaussianEvent(noise_multiplier, sample_rate)


def spent(
    event: PrivacyEvent,
    steps: Number,
    delta: Number,
    relation: str = ADD_REMOVE,
    accountant: str = BEST,
) -> float:
    """ε of ``steps`` repetitions of ``event`` at ``delta``."""
    counts = {event: checks.count("steps", steps)}
    at = checks.delta(delta)
    return compose_epsilon(counts, relation, event.unit, at, accountant=accountant).epsilon


def calibrate_noise_multiplier(
    epsilon: Number,
    delta: Number,
    sample_rate: Number,
    steps: Number,
    *,
    relation: str = ADD_REMOVE,
    accountant: str = BEST,
) -> tuple[float, float]:
    """(noise multiplier, its ε): the smallest multiplier whose ε is at most ``epsilon``.

    epsilon > 0, delta in (0, 1), sample_rate in [0, 1], steps ≥ 0 (0 steps or rate 0 → (0, 0)).
    """
    target, delta = checks.positive("epsilon", epsilon), checks.delta(delta)
    rate, steps = checks.sample_rate(sample_rate), checks.count("steps", steps)
    if rate == 0 or steps == 0:
        return 0.0, 0.0

    def excess(log_sigma: float) -> float:
        event = subsampled_event(math.exp(log_sigma), rate, relation)
        return _log_ratio(spent(event, steps, delta, relation, accountant), target)

    excess = functools.cache(excess)  # the bracket's ends are asked for again
    sigma = math.exp(_smallest_holding(excess, *_bracket(excess, epsilon)))
    return sigma, spent(subsampled_event(sigma, rate, relation), steps, delta, relation, accountant)


def _bracket(excess: Callable[[float], float], epsilon: Number) -> tuple[float, float]:
    """(misses, holds), a step of 1 (growing) apart, for a decreasing ``excess`` of log σ."""
    step, misses, holds = 1.0, -1.0, 0.0
    if excess(holds) <= 0:
        while excess(misses) <= 0:
            step *= 1.5
            holds, misses = misses, misses - step
        return misses, holds
    misses, holds = 0.0, 1.0
    while excess(holds) > 0:
        step *= 1.5
        misses, holds = holds, holds + step
        if holds > math.log(_LARGEST_MULTIPLIER):
            wanted = f"a target reached by noise below {_LARGEST_MULTIPLIER}"
            raise InputError("epsilon", epsilon, wanted)
    return misses, holds


def _log_ratio(epsilon: float, target: float) -> float:
    """log(ε/target), positive only where ε is truly above the target. Near linear in log σ."""
    if epsilon == 0:
        return -math.inf
    ratio = math.log(epsilon) - math.log(target)
    return max(ratio, 5e-324) if epsilon > target else min(ratio, 0.0)


def _smallest_holding(excess: Callable[[float], float], misses: float, holds: float) -> float:
    """The smallest argument, to the tolerance, whose decreasing ``excess`` is ≤ 0.

    Brent's method finds the crossing, from either side; only a point at which ``excess`` was
    found to be ≤ 0 is returned.
    """
    from scipy.optimize import brentq  # here: it takes a quarter of a second to import

    def finite(log_sigma: float) -> float:
        """ε of 0 and ∞ as logarithms, far outside what a target can be."""
        return min(max(excess(log_sigma), -_FAR), _FAR)

    rtol = 4 * sys.float_info.epsilon
    point = float(brentq(finite, misses, holds, xtol=_TOLERANCE / 2, rtol=rtol))
    while point < holds and excess(point) > 0:
        point += _TOLERANCE / 2
    return min(point, holds)
