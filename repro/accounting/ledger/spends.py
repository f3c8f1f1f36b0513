"""What was spent: hospital → what it did in a round → in how many rounds.

Spends only ever add up. Two saved states of parts of one run are merged by adding them, and
entries that turn out to be equal are counted, never overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from repro.accounting import checks
from repro.accounting.checks import RELATIONS, Relation
from repro.accounting.events import PrivacyEvent, common_relations, event_from_dict
from repro.accounting.ledger.views import SECURE, View
from repro.errors import InputError


@dataclass(frozen=True)
class RoundSpend:
    """What one hospital did in one round: ``event`` × ``count``.

    seen: (view's key, event), sorted, where a view saw something else than its rule says.
    """

    event: PrivacyEvent
    count: int
    seen: tuple[tuple[str, PrivacyEvent], ...] = ()

    def seen_by(self, view: View) -> PrivacyEvent:
        return dict(self.seen).get(view.key) or view.of(self.event)

    @property
    def events(self) -> tuple[PrivacyEvent, ...]:
        return (self.event, *(event for _, event in self.seen))

    def as_dict(self) -> dict[str, Any]:
        seen = {key: event.as_dict() for key, event in self.seen}
        return {"event": self.event.as_dict(), "count": self.count, "seen": seen}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RoundSpend:
        seen = dict(data.get("seen", {}))
        if "in_sum" in data:  # how states were written while there were two views
            seen[SECURE] = data["in_sum"]
        event = event_from_dict(data["event"])
        parsed = {key: event_from_dict(other) for key, other in seen.items()}
        differing = {key: other for key, other in parsed.items() if other != event}
        return cls(event, checks.count("count", data["count"]), tuple(sorted(differing.items())))


class Spends:
    """The spends of hospitals that are fixed in advance, all protecting one ``unit``."""

    def __init__(self, hospitals: Iterable[int], unit: str) -> None:
        self.unit = unit
        self._rounds: dict[int, dict[RoundSpend, int]] = {h: {} for h in hospitals}
        self.relations: tuple[Relation, ...] = RELATIONS  # that all of it is proved for

    def copy(self) -> Spends:
        other = Spends(self._rounds, self.unit)
        other._rounds = self.by_hospital()
        other.relations = self.relations
        return other

    def by_hospital(self) -> dict[int, dict[RoundSpend, int]]:
        return {hospital: dict(rounds) for hospital, rounds in self._rounds.items()}

    def of(self, hospital: int | None) -> dict[RoundSpend, int]:
        return {} if hospital is None else dict(self._rounds[hospital])

    def events(self) -> Iterator[PrivacyEvent]:
        """Every elementary event that was spent."""
        for rounds in self._rounds.values():
            for spend in rounds:
                yield from (leaf for leaf, _ in spend.event.leaves())

    def most_rounds(self) -> int:
        return max((sum(rounds.values()) for rounds in self._rounds.values()), default=0)

    def add(self, hospital: int, spend: RoundSpend, rounds: int = 1) -> None:
        """Count ``spend`` in ``rounds`` more rounds; refuses, adding nothing, what has no proof."""
        if hospital not in self._rounds:
            raise InputError("hospital", hospital, f"one of {sorted(self._rounds)}")
        self.relations = self._still_proved(spend)
        own = self._rounds[hospital]
        own[spend] = own.get(spend, 0) + rounds

    def _still_proved(self, spend: RoundSpend) -> tuple[Relation, ...]:
        """The relations everything is proved for once ``spend`` is added; refuses if none is."""
        for leaf in (leaf for event in spend.events for leaf, _ in event.leaves()):
            if leaf.unit != self.unit:
                raise InputError("event", leaf, f"an event of unit {self.unit}")
            if not leaf.proved_for():
                raise InputError("event", leaf, f"an event with a proof: {leaf.reason}")
        left = tuple(r for r in common_relations(spend.events) if r in self.relations)
        if not left:
            wanted = " or ".join(map(str, self.relations))
            raise InputError("event", spend.event, f"one proved for {wanted}")
        return left

    def as_list(self) -> list[dict[str, Any]]:
        """JSON-able, exact, and independent of the order of spending."""
        spent = [
            {"hospital": hospital, **spend.as_dict(), "rounds": times}
            for hospital, rounds in self._rounds.items()
            for spend, times in rounds.items()
        ]
        return sorted(spent, key=lambda entry: json.dumps(entry, sort_keys=True))

    def add_list(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add what ``as_list`` wrote; equal entries add up."""
        for entry in entries:
            rounds = checks.count("rounds", entry["rounds"], least=1)
            self.add(entry["hospital"], RoundSpend.from_dict(entry), rounds)
