"""A numerically tight cross-check through the ``dp-accounting`` library (optional).

The privacy loss distribution (Koskela et al. 2020; Doroshenko et al. 2022) loses nothing but its
discretisation, so it says how much Rényi accounting gives away, usually 8–18 %. For reports and
tests only: no guarantee of a run rests on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from repro.errors import InputError, MissingDependency
from repro.privacy.accounting import checks
from repro.privacy.accounting.checks import ADD_REMOVE, Number
from repro.privacy.accounting.curves import check_proved
from repro.privacy.accounting.events import (
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
)

_INTERVAL = 1e-4


def pld_epsilon(
    counts: Mapping[PrivacyEvent, int], delta: Number, *, relation: str = ADD_REMOVE
) -> float:
    """ε of Gaussian and Poisson-sampled Gaussian events, by pessimistic discretisation.

    counts: event → repetitions. Raises ``MissingDependency`` without dp-accounting, and
    ``InputError`` for other events.
    """
    delta = checks.delta(delta)
    try:
        from dp_accounting.pld import privacy_loss_distribution as pld
    except ImportError:
        raise MissingDependency(
            "dp-accounting", "the tight cross-check", "pip install dp-accounting"
        ) from None
    total = pld.identity(value_discretization_interval=_INTERVAL)
    for event, count in counts.items():
        check_proved(event, relation, event.unit)
        if not isinstance(event, (GaussianEvent, PoissonSampledGaussianEvent)):
            raise InputError("event", event, "a Gaussian event, sampled or not")
        sigma = event.effective_multiplier(relation)
        if sigma == 0:
            return math.inf
        rate = getattr(event, "sample_rate", 1.0)
        one = pld.from_gaussian_mechanism(
            sigma, value_discretization_interval=_INTERVAL, sampling_prob=rate
        )
        total = total.compose(one.self_compose(count))
    return float(total.get_epsilon_for_delta(delta))
