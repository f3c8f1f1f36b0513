"""The accountant: composes events and states (ε, δ), or refuses.

Formal guarantee. For the stated unit and relation, the composition of everything composed so
far, each event chosen adaptively, is (ε, δ)-DP: RDP adds up under adaptive composition (Mironov
2017, Proposition 1), and the conversion holds at every order. ε is rounded outward.
"""

from __future__ import annotations

import math

import numpy as np

from repro.accounting import checks, conversion
from repro.accounting.base import Accountant
from repro.accounting.checks import Number, Orders
from repro.accounting.curves import rdp_of
from repro.accounting.orders import minimise

_UP = 1 + 1e-14  # a sum of a few rounded-up products
_NEAR_ONE = 1 + 2.0**-20  # where RDP stands in for the KL divergence


class RDPAccountant(Accountant):
    """Rényi-DP accountant over events.

    | composed so far          | (ε, order)                                        |
    |--------------------------|---------------------------------------------------|
    | nothing, or zero counts  | (0, ∞): even D_∞ is 0                             |
    | an event without noise   | (∞, ∞)                                            |
    | δ ≥ total variation      | (0, an order near 1, by the KL branch)            |
    """

    def rdp(self, orders: Orders) -> Orders:
        """Total RDP, in nats, at each order: (m,) float64 in (1, ∞) → (m,) float64."""
        orders = checks.orders(orders)
        total = np.zeros_like(orders)
        # A fixed order of summation makes the total independent of the order of composition.
        for event, count in sorted(self._counts.items(), key=repr):
            once = rdp_of(event, self.relation, orders)
            with np.errstate(over="ignore", invalid="ignore"):
                # Nothing, however often: 0 × ∞ is 0 here.
                total = total + np.where(once == 0, 0.0, once * checks.as_float(count))
        return total * _UP

    def epsilon(self, delta: Number) -> tuple[float, float]:
        delta = checks.delta(delta)
        if not self._counts:
            return 0.0, math.inf
        if self._total_variation() <= delta:
            return 0.0, _NEAR_ONE
        return minimise(lambda orders: conversion.epsilon_from_rdp(orders, self.rdp(orders), delta))

    def delta(self, epsilon: Number) -> float:
        epsilon = checks.epsilon(epsilon)
        if not self._counts:
            return 0.0

        def objective(orders: Orders) -> Orders:
            log_delta = conversion.log_delta_from_rdp(orders, self.rdp(orders), epsilon)
            # NaN (∞ − ∞ at an infinite divergence) proves nothing: δ = 1 there.
            return np.where(np.isnan(log_delta), 0.0, log_delta)

        log_delta, _ = minimise(objective)
        at_epsilon = max(math.exp(min(log_delta, 0.0)) * (1 + 1e-12), 5e-324)
        return min(at_epsilon, self._total_variation())

    def _total_variation(self) -> float:
        return conversion.total_variation_bound(float(self.rdp(np.array([_NEAR_ONE]))[0]))
