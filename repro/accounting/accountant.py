"""The accountant: composes events and states (ε, δ), or refuses.

Formal guarantee. For the stated unit and relation, the composition of everything composed so
far, each event chosen adaptively, is (ε, δ)-DP: RDP adds up under adaptive composition (Mironov
2017, Proposition 1), and the conversion holds at every order. ε is rounded outward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from repro.accounting import checks, conversion
from repro.accounting.checks import ADD_REMOVE, RECORD, Number
from repro.accounting.curves import check_proved, rdp_of
from repro.accounting.events import PrivacyEvent, event_from_dict
from repro.accounting.orders import minimise
from repro.errors import InputError

_UP = 1 + 1e-14  # a sum of a few rounded-up products
_NEAR_ONE = 1 + 2.0**-20  # where RDP stands in for the KL divergence


class RDPAccountant:
    """Rényi-DP accountant over events.

    Composition is kept as event → count, so it costs the same for ten steps and for 10⁹, does
    not depend on the order of events, and survives being written to JSON exactly.

    | composed so far          | (ε, order)                                        |
    |--------------------------|---------------------------------------------------|
    | nothing, or zero counts  | (0, ∞): even D_∞ is 0                             |
    | an event without noise   | (∞, ∞)                                            |
    | δ ≥ total variation      | (0, an order near 1, by the KL branch)            |
    """

    def __init__(self, relation: str = ADD_REMOVE, unit: str = RECORD) -> None:
        self.relation = checks.relation(relation)
        self.unit = checks.one_of("unit", unit, checks.UNITS)
        self._counts: dict[PrivacyEvent, int] = {}

    @property
    def counts(self) -> Mapping[PrivacyEvent, int]:
        """The elementary events composed so far, and how often."""
        return dict(self._counts)

    def compose(self, event: PrivacyEvent, count: Number = 1) -> RDPAccountant:
        """Add ``count`` repetitions of ``event``; returns self.

        Raises ``InputError`` (and adds nothing) for a unit, relation or sampling without proof.
        """
        times = checks.count("count", count)
        check_proved(event, self.relation, self.unit)
        for leaf, inner in event.leaves():
            if inner * times:
                self._counts[leaf] = self._counts.get(leaf, 0) + inner * times
        return self

    def rdp(self, orders: np.ndarray) -> np.ndarray:
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

    def epsilon(self, delta: Number, *, conversion_rule: str = "tight") -> tuple[float, float]:
        """(ε, order) at ``delta`` in (0, 1): the smallest ε over all orders, never too small.

        conversion_rule: "tight" (Canonne–Kamath–Steinke 2020) or "mironov" (2017, for
        comparison; always larger).
        """
        delta = checks.delta(delta)
        rule = {"tight": conversion.epsilon_from_rdp, "mironov": conversion.epsilon_mironov}[
            checks.one_of("conversion_rule", conversion_rule, ("tight", "mironov"))
        ]
        if not self._counts:
            return 0.0, math.inf
        if conversion_rule == "tight" and self._total_variation() <= delta:
            return 0.0, _NEAR_ONE
        return minimise(lambda orders: rule(orders, self.rdp(orders), delta))

    def delta(self, epsilon: Number) -> float:
        """The smallest δ proved at ``epsilon`` ≥ 0, at most 1, rounded up."""
        epsilon = checks.epsilon(epsilon)
        if not self._counts:
            return 0.0
        log_delta, _ = minimise(
            lambda orders: _finite(conversion.log_delta_from_rdp(orders, self.rdp(orders), epsilon))
        )
        at_epsilon = max(math.exp(min(log_delta, 0.0)) * (1 + 1e-12), 5e-324)
        return min(at_epsilon, self._total_variation())

    def _total_variation(self) -> float:
        return conversion.total_variation_bound(float(self.rdp(np.array([_NEAR_ONE]))[0]))

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact; ``load_state_dict`` on any accountant gives this one back."""
        spent = sorted(self._counts.items(), key=repr)
        return {
            "relation": self.relation.value,
            "unit": self.unit,
            "spent": [{"event": event.as_dict(), "count": count} for event, count in spent],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace this accountant's whole state; a state it cannot account for changes nothing."""
        if set(state) != {"relation", "unit", "spent"}:
            raise InputError("state", sorted(state), "the keys relation, unit and spent")
        loaded = RDPAccountant(state["relation"], state["unit"])
        for entry in state["spent"]:
            loaded.compose(event_from_dict(entry["event"]), entry["count"])
        self.relation, self.unit, self._counts = loaded.relation, loaded.unit, loaded._counts


def _finite(log_delta: np.ndarray) -> np.ndarray:
    """NaN (∞ − ∞ at an infinite divergence) proves nothing: δ = 1 there."""
    return np.where(np.isnan(log_delta), 0.0, log_delta)
