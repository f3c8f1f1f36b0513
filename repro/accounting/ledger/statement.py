"""One ε with its origin: the worst hospital's, of all its rounds or of its worst one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from repro.accounting.composition import GAUSSIAN, NONE, RDP, EpsilonBound, compose_epsilon
from repro.accounting.events import PrivacyEvent
from repro.accounting.ledger.spends import RoundSpend, Spends
from repro.accounting.ledger.views import View


@dataclass(frozen=True)
class Statement(EpsilonBound):
    """``hospital`` is the one that attains the maximum; None where nothing was spent."""

    hospital: int | None = None


NO_GUARANTEE = Statement(math.inf, NONE)
_NOTHING_SPENT = Statement(0.0, GAUSSIAN)


def worst(
    spends: Spends, view: View, relation: str, delta: float, *, one_round: bool = False
) -> Statement:
    """The largest ε over hospitals, of all rounds together or of the worst single round.

    ∞ where something spent is not proved for ``relation``.
    """
    if relation not in spends.relations:
        return NO_GUARANTEE
    asked: dict[frozenset[tuple[PrivacyEvent, int]], int] = {}  # like hospitals are asked once
    for hospital, rounds in spends.by_hospital().items():
        whole = [{spend: 1} for spend in rounds] if one_round else [rounds] if rounds else []
        for part in whole:
            asked.setdefault(frozenset(_counts(part, view).items()), hospital)
    return _largest(asked, relation, spends.unit, delta) if asked else _NOTHING_SPENT


def _counts(rounds: Mapping[RoundSpend, int], view: View) -> dict[PrivacyEvent, int]:
    counts: dict[PrivacyEvent, int] = {}
    for spend, times in rounds.items():
        event = spend.seen_by(view)
        counts[event] = counts.get(event, 0) + spend.count * times
    return counts


def _largest(
    asked: Mapping[frozenset[tuple[PrivacyEvent, int]], int], relation: str, unit: str, delta: float
) -> Statement:
    # RDP alone is cheap and never smaller than the best bound: who cannot be worst is not asked.
    at_most = {
        counts: compose_epsilon(dict(counts), relation, unit, delta, accountant=RDP).epsilon
        for counts in asked
    }
    best = Statement(-math.inf, NONE)
    for counts in sorted(asked, key=at_most.__getitem__, reverse=True):
        if at_most[counts] <= best.epsilon:
            break
        bound = compose_epsilon(dict(counts), relation, unit, delta)
        if bound.epsilon > best.epsilon:
            best = Statement(**vars(bound), hospital=asked[counts])
    return best
