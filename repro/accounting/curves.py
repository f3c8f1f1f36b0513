"""Which proof gives the Rényi divergence of which event, under which relation.

``rdp_of(event, relation, orders)`` is the only place where an event meets a formula. An event
without a proof for the relation is refused here, whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from repro.accounting import checks, events
from repro.accounting.checks import Orders
from repro.accounting.events import PrivacyEvent
from repro.accounting.random_stopping import best_of_trials_rdp
from repro.accounting.subsampled_gaussian import rdp_gaussian, rdp_poisson_gaussian
from repro.accounting.without_replacement import rdp_fixed_batch_gaussian
from repro.errors import InputError

_UP = 1 + 1e-12


def check_proved(event: PrivacyEvent, relation: str, unit: str) -> None:
    """Raise ``InputError`` unless every leaf is proved for ``relation`` and has ``unit``."""
    for leaf, _ in event.leaves():
        name = type(leaf).__name__
        if leaf.unit != unit:
            raise InputError("event", f"{name} of unit {leaf.unit}", f"an event of unit {unit}")
        if type(leaf) not in _CURVES or relation not in leaf.proved_for():
            why = leaf.reason or "an event with a proof"
            raise InputError("event", f"{name} under {relation}", f"a proved combination: {why}")


def rdp_of(event: PrivacyEvent, relation: str, orders: Orders) -> Orders:
    """RDP of one elementary event; orders (m,) float64 in (1, ∞) → (m,) float64, rounded up."""
    check_proved(event, relation, event.unit)
    orders = checks.orders(orders)
    return _CURVES[type(event)](event, relation, orders)


def rdp_laplace(noise_multiplier: float, orders: Orders) -> Orders:
    """RDP of the Laplace mechanism with scale = noise_multiplier × sensitivity, rounded up.

    Mironov 2017 (arXiv 1702.07476), Proposition 6, with y = 1/noise_multiplier:
    (α−1)·RDP = log[(α·e^{(α−1)y} + (α−1)·e^{−αy})/(2α−1)]. orders (m,) → (m,), nats.
    """
    orders = np.asarray(orders, dtype=np.float64)
    if noise_multiplier == 0:
        return np.full_like(orders, np.inf)
    y = 1 / np.float64(noise_multiplier)
    a = orders - 1
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        grown = orders * np.expm1(a * y) + a * np.expm1(-orders * y)
        small = np.where(orders * y < 0.1, _laplace_series(orders, y), grown) / (orders + a)
        # e^{(α−1)y} dominates when it is large: take it out of the logarithm.
        large = a * y + np.log((orders + a * np.exp(-(orders + a) * y)) / (orders + a))
        moment = np.where(a * y > 30, large, np.log1p(small))
    # Pure DP caps every order: D_α ≤ D_∞ = y.
    return np.maximum(np.minimum(moment / a, y) * _UP, 5e-324)


def _laplace_series(orders: Orders, y: float) -> Orders:
    """α(e^{(α−1)y} − 1) + (α−1)(e^{−αy} − 1), whose first-order terms cancel, for αy < 0.1."""
    a = orders - 1
    total = np.zeros_like(orders)
    power = np.ones_like(orders)
    for k in range(1, 16):
        power = power * (y / k)
        if k > 1:
            total = total + power * (orders * a**k + a * (-orders) ** k)
    return total


def _best_of_trials(event: events.BestOfTrialsEvent, relation: str, orders: Orders) -> Orders:
    assert event.eta is not None  # check_proved
    leaves = list(event.trial.leaves())

    def trial(at: np.ndarray) -> np.ndarray:
        parts = [rdp_of(leaf, relation, at) * count for leaf, count in leaves if count]
        return np.sum(parts, axis=0) if parts else np.zeros_like(at)

    with np.errstate(over="ignore", invalid="ignore"):
        return best_of_trials_rdp(trial, orders, event.trials, event.eta)


_Curve = Callable[[Any, str, Orders], Orders]  # of an event under a relation


def _of_noise(curve: Callable[..., Orders], *more: str) -> _Curve:
    """``curve`` at noise ÷ sensitivity; more: the event's fields that it takes besides."""
    return lambda event, relation, orders: curve(
        event.effective_multiplier(relation), *(getattr(event, name) for name in more), orders
    )


_CURVES: dict[type[PrivacyEvent], _Curve] = {
    events.NonPrivateEvent: lambda event, relation, orders: np.full_like(orders, np.inf),
    events.GaussianEvent: _of_noise(rdp_gaussian),
    # At most the continuous one's: Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), Proposition 5.
    events.DiscreteGaussianEvent: _of_noise(rdp_gaussian),
    events.LaplaceEvent: _of_noise(rdp_laplace),
    events.PoissonSampledGaussianEvent: _of_noise(rdp_poisson_gaussian, "sample_rate"),
    events.FixedBatchGaussianEvent: _of_noise(rdp_fixed_batch_gaussian, "sample_rate"),
    events.BestOfTrialsEvent: _best_of_trials,
}


def rdp(event: PrivacyEvent, order: checks.Number, *, relation: str = checks.ADD_REMOVE) -> float:
    """RDP of one event at one order, in nats."""
    return float(rdp_of(event, relation, np.array([checks.order(order)]))[0])
