"""What a ledger is made of and what it says: the spend of a round, and one ε with its origin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repro.accounting.composition import NO_ACCOUNTANT
from repro.accounting.events import PrivacyEvent

PLAIN = "plain"
SECURE = "secure"
AGGREGATIONS = (PLAIN, SECURE)


@dataclass(frozen=True)
class RoundSpend:
    """What one hospital did in one round: ``event`` × ``count``, and how the sum showed it."""

    event: PrivacyEvent
    count: int
    in_sum: PrivacyEvent  # what is left of the event after secure aggregation

    def seen(self, aggregation: str) -> PrivacyEvent:
        return self.event if aggregation == PLAIN else self.in_sum


@dataclass(frozen=True)
class Statement:
    """One ε with where it comes from. ``hospital`` is the one that attains the maximum."""

    epsilon: float
    order: float | None  # Rényi order; None where the accounting is exact
    hospital: int | None
    accountant: str


NO_GUARANTEE = Statement(math.inf, None, None, NO_ACCOUNTANT)
