"""A number of records that stays a hospital's own: the offer tells a noisy one, never too small.

The plan then speaks of *slots*, m = n + 9σ + N(0, σ²), rounded up: as many as the hospital has
records, n, and some that are empty. All that is public is made of slots (weights, sample rate, room
in the field), and an empty one adds nothing to any sum. So "a record becomes zero" and "a record is
not there" are one thing, and what tells them apart, m itself, is a Gaussian release of sensitivity
1, which the ledger charges in every view. Below n lies such a number with probability 1.2e-19, far
below what δ is rounded up by; then n itself is told.
"""

from __future__ import annotations

import math

import numpy as np

from repro.accounting import PrivacyEvent
from repro.checks import check_real
from repro.errors import InputError
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.sum import PrivateSum
from repro.randomness import RootSeed

_ABOVE = 9  # deviations
_MOST = 2**24  # records of a hospital
_SMALLEST = 0.1  # below it a number is as good as told


def slots(records: int, deviation: float, seed: RootSeed) -> int:
    """At least ``records``. deviation: σ, in records; seed: used for this and nothing else."""
    total = PrivateSum(_plan(deviation), (0,), seed=seed, purpose="number of records", secagg=None)
    (noisy,) = total.release({0: np.array([float(records)])}, round=0).total
    return max(records, math.ceil(float(noisy) + _ABOVE * deviation))


def slots_event(deviation: float) -> PrivacyEvent:
    """What it costs a record of the hospital's that its slots are known. Unit: record."""
    return _plan(deviation).event(1)


def check_records(hospital: int, records: int, told: int, deviation: float) -> None:
    """Raise InputError unless so many records may lie behind the number in the plan.

    deviation: 0 where the exact number was told. Fewer than twice the usual excess were told for
    another file; more would need a sum that has no room for them.
    """
    fewest = max(1, told - math.ceil(2 * _ABOVE * deviation)) if deviation else told
    if not fewest <= records <= told:
        shown = f"{fewest} to {told}" if deviation else f"the {told}"
        expected = f"{shown} that the plan says of hospital {hospital}"
        raise InputError("data", f"{records} training records", expected)


def check_deviation(deviation: float) -> float:
    """Of noise on a number of records; 0: none."""
    expected = f"0, or at least {_SMALLEST:g} records"
    return check_real(
        "count_noise", deviation, lambda x: x == 0 or _SMALLEST <= x <= _MOST, expected
    )


def _plan(deviation: float) -> NoisePlan:
    return NoisePlan(
        hospitals=1,
        dimension=1,
        sensitivity=1.0,
        noise_multiplier=deviation,
        largest_sum=_MOST,
        colluders=0,
        field_bits=61,
    )
