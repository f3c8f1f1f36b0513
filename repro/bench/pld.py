"""A numerically tight cross-check through the ``dp-accounting`` library (optional), and our own
loss accountant beside it.

The privacy loss distribution (Koskela et al. 2020; Doroshenko et al. 2022) loses nothing but its
discretisation, so it says how much Rényi accounting gives away: 10–13 % over thousands of steps,
more over few (``repro bench tightness``). An oracle for benchmarks and tests: no guarantee rests
on it, and nothing else may import it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from types import ModuleType

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, Number
from repro.accounting.curves import check_proved
from repro.accounting.events import (
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
)
from repro.bench.harness import Row
from repro.errors import InputError, MissingDependency

INTERVAL = 1e-4


@dataclass(frozen=True)
class Point:
    """``steps`` Poisson-sampled steps; interval: of dp-accounting's grid, fine enough for them."""

    sigma: float
    rate: float
    steps: int
    delta: float
    interval: float = INTERVAL


#: From ordinary settings to small sample rates and many steps, where coarse grids give away most.
POINTS = (
    Point(1.1, 64 / 11959, 9_342, 1e-5),
    Point(1.0, 0.01, 1_000, 1e-6),
    Point(1.0, 1e-3, 10_000, 1e-6),
    Point(0.7, 1e-3, 10_000, 1e-6),
    Point(0.7, 1e-4, 10_000, 1e-6),
    Point(0.6, 1e-4, 10_000, 1e-6),
    Point(0.7, 1e-5, 100_000, 1e-6, 1e-5),
)


def compare(points: Sequence[Point] = POINTS) -> list[Row]:
    """Our loss accountant's ε, from above and from below, beside dp-accounting's upper bound.

    Each is asked once, its seconds are in its row: an ε is kept, so a second call is free.
    """
    from repro.accounting import PLDAccountant

    rows = []
    for point in points:
        event = PoissonSampledGaussianEvent(point.sigma, point.rate)
        metric = f"tight ε: σ = {point.sigma:g}, q = {point.rate:.3g}, {point.steps:,} steps"
        metric += f", δ = {point.delta:g}"
        start = time.perf_counter()
        accountant = PLDAccountant().compose(event, point.steps)
        ours, _ = accountant.epsilon(point.delta)
        took = time.perf_counter() - start
        least = accountant.lower_epsilon(point.delta)
        detail = {"point": list(astuple(point)), "at_least": least, "seconds": took}
        note = f"at least {least:.4g}; {took:.2g} s"
        ours_row = Row.of("ours", metric, "ε", [ours], note=note, detail=detail)
        start = time.perf_counter()
        try:
            theirs = pld_epsilon({event: point.steps}, point.delta, interval=point.interval)
        except MissingDependency:
            missing = f"{note}; dp-accounting is not installed"
            rows.append(Row.of("ours", metric, "ε", [ours], note=missing, detail=detail))
            continue
        took = time.perf_counter() - start
        note, detail = f"{took:.2g} s", {"point": list(astuple(point)), "seconds": took}
        relative = theirs / ours
        rows += [
            ours_row,
            Row.of(
                "dp-accounting", metric, "ε", [theirs], relative=relative, note=note, detail=detail
            ),
        ]
    return rows


def pld_epsilon(
    counts: Mapping[PrivacyEvent, int],
    delta: Number,
    *,
    relation: str = ADD_REMOVE,
    lower: bool = False,
    interval: float = INTERVAL,
) -> float:
    """A bound on ε of Gaussian and Poisson-sampled Gaussian events; the truth lies between both.

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
        check_proved(event, relation, event.unit)
        if not isinstance(event, (GaussianEvent, PoissonSampledGaussianEvent)):
            raise InputError("event", event, "a Gaussian event, sampled or not")
        sigma = event.effective_multiplier(relation)
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
