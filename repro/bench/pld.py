"""A numerically tight cross-check through the ``dp-accounting`` library (optional).

The privacy loss distribution (Koskela et al. 2020; Doroshenko et al. 2022) loses nothing but its
discretisation, so it says how much Rényi accounting gives away: 10–13 % over thousands of steps,
more over few (``repro bench tightness``). An oracle for benchmarks and tests: no guarantee rests
on it, and nothing else may import it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, Number
from repro.accounting.curves import check_proved
from repro.accounting.events import GaussianEvent, PoissonSampledGaussianEvent, PrivacyEvent
from repro.errors import InputError, MissingDependency

INTERVAL = 1e-4


def pld_epsilon(
    counts: Mapping[PrivacyEvent, int],
    delta: Number,
    *,
    lower: bool = False,
    interval: float = INTERVAL,
) -> float:
    """A bound on ε, add/remove, of Gaussian and Poisson-sampled Gaussian events; the truth lies
    between both.

    counts: event → repetitions. lower: False bounds ε from above (losses connected by dots:
    Doroshenko et al. 2022), True from below (losses rounded down to the grid, so the bound lies
    below the truth by up to ``interval`` a repetition). interval: of the grid of losses, in nats.
    Raises ``MissingDependency`` without dp-accounting, and ``InputError`` for other events.
    """
    delta = checks.delta(delta)
    interval = checks.positive("interval", interval)
    pld = _library()
    total = pld.identity(value_discretization_interval=interval, pessimistic_estimate=not lower)
    for event, count in counts.items():
        check_proved(event, ADD_REMOVE, event.unit)
        if not isinstance(event, (GaussianEvent, PoissonSampledGaussianEvent)):
            raise InputError("event", event, "a Gaussian event, sampled or not")
        sigma = event.effective_multiplier(ADD_REMOVE)
        if sigma == 0:
            return math.inf
        one = pld.from_gaussian_mechanism(
            sigma,
            pessimistic_estimate=not lower,
            value_discretization_interval=interval,
            sampling_prob=getattr(event, "sample_rate", 1.0),
            use_connect_dots=not lower,
        )
        total = total.compose(one.self_compose(count))
    return float(total.get_epsilon_for_delta(delta))


def _library() -> ModuleType:
    try:
        from dp_accounting.pld import privacy_loss_distribution
    except ImportError:
        raise MissingDependency(
            "dp-accounting", "the tight cross-check", "pip install dp-accounting"
        ) from None
    module: ModuleType = privacy_loss_distribution
    return module
