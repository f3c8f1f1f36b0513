"""Calibration: the noise that meets a target (ε, δ).

Every answer is checked with the accountant before it is returned, at exactly the float that is
returned: the smallest noise that holds, to a relative 1e-9, and never one that misses by rounding.

accountant, everywhere: "rdp" (the default: what the runs of record were calibrated with), "pld"
(the privacy loss distribution: less noise for the same ε) or "best". PLD's ε jumps by up to 4e-4
relative where its grid changes, so with it the smallest noise is found to about that only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, REPLACE_ONE, Number
from repro.accounting.composition import RDP, compose_epsilon
from repro.accounting.events import (
    FixedBatchGaussianEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
)
from repro.errors import InputError

_TOLERANCE = 1e-9
_LARGEST_MULTIPLIER = 1e12


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
    accountant: str = RDP,
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
    accountant: str = RDP,
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
    low, high = _bracket(excess, start=0.0, field="epsilon", value=epsilon)
    sigma = math.exp(_smallest_holding(excess, low, high))
    return sigma, spent(subsampled_event(sigma, rate, relation), steps, delta, relation, accountant)


def _bracket(
    excess: Callable[[float], float], *, start: float, field: str, value: object
) -> tuple[float, float]:
    """(misses, holds), a step of 1 (growing) apart, for a decreasing ``excess``."""
    step = 1.0
    if excess(start) <= 0:
        holds, misses = start, start - step
        while excess(misses) <= 0:
            step *= 1.5
            holds, misses = misses, misses - step
        return misses, holds
    misses, holds = start, start + step
    while excess(holds) > 0:
        step *= 1.5
        misses, holds = holds, holds + step
        if holds > math.log(_LARGEST_MULTIPLIER):
            raise InputError(field, value, f"a target reached by noise below {_LARGEST_MULTIPLIER}")
    return misses, holds


def _log_ratio(epsilon: float, target: float) -> float:
    """log(ε/target), positive only where ε is truly above the target. Near linear in log σ."""
    if epsilon == 0:
        return -math.inf
    ratio = math.log(epsilon) - math.log(target)
    return max(ratio, 5e-324) if epsilon > target else min(ratio, 0.0)


def _smallest_holding(excess: Callable[[float], float], misses: float, holds: float) -> float:
    """The smallest argument, to the tolerance, whose decreasing ``excess`` is ≤ 0.

    Regula falsi after Illinois (a retained end's value is halved), and a halving of the bracket
    whenever three turns have not shrunk it to a quarter, so it always ends. Only points at
    which ``excess`` was found to be ≤ 0 are ever returned.
    """
    above, below = excess(misses), excess(holds)
    side, widths = 0, [math.inf] * 3
    while holds - misses > _TOLERANCE:
        width = holds - misses
        slow = width > widths[-3] / 4
        if slow or not (math.isfinite(above) and math.isfinite(below)) or above <= below:
            point = misses + width / 2
            widths = [math.inf] * 3
        else:
            point = misses + width * above / (above - below)
            # Stay a little inside, so that the far end moves too once this one has converged.
            point = min(max(point, misses + _TOLERANCE / 2), holds - _TOLERANCE / 2)
            widths.append(width)
        value = excess(point)
        if value <= 0:
            holds, below = point, value
            above = above / 2 if side == -1 else above
            side = -1
        else:
            misses, above = point, value
            below = below / 2 if side == 1 else below
            side = 1
    return holds
