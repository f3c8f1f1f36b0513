"""What every accountant is: events and how often they happened, and two questions about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, RECORD, Number
from repro.accounting.curves import check_proved
from repro.accounting.events import PrivacyEvent, event_from_dict
from repro.errors import InputError

Own = TypeVar("Own", bound="Accountant")


class Accountant(ABC):
    """Composes events for one relation and unit, and states (ε, δ), or refuses.

    Composition is kept as event → count, so it costs the same for ten steps and for 10⁹, does
    not depend on the order of events, and survives being written to JSON exactly.
    """

    def __init__(self, relation: str = ADD_REMOVE, unit: str = RECORD) -> None:
        self.relation = checks.relation(relation)
        self.unit = checks.one_of("unit", unit, checks.UNITS)
        self._counts: dict[PrivacyEvent, int] = {}

    @property
    def counts(self) -> Mapping[PrivacyEvent, int]:
        """The elementary events composed so far, and how often."""
        return dict(self._counts)

    def compose(self: Own, event: PrivacyEvent, count: Number = 1) -> Own:
        """Add ``count`` repetitions of ``event``; returns self.

        Raises ``InputError`` (and adds nothing) for a unit, relation or sampling without proof.
        """
        times = checks.count("count", count)
        self._check(event)
        for leaf, inner in event.leaves():
            if inner * times:
                self._counts[leaf] = self._counts.get(leaf, 0) + inner * times
        return self

    def _check(self, event: PrivacyEvent) -> None:
        """Raise ``InputError`` for an event that this accountant has no proof for."""
        check_proved(event, self.relation, self.unit)

    @abstractmethod
    def epsilon(self, delta: Number) -> tuple[float, float | None]:
        """(ε, order) at ``delta`` in (0, 1): the smallest ε ≥ 0 that is proved, never too small.

        order: Rényi order that gave it; None where the proof has none.
        """

    @abstractmethod
    def delta(self, epsilon: Number) -> float:
        """The smallest δ proved at ``epsilon`` ≥ 0, at most 1, rounded up."""

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
        loaded = type(self)(state["relation"], state["unit"])
        for entry in state["spent"]:
            loaded.compose(event_from_dict(entry["event"]), entry["count"])
        self.relation, self.unit, self._counts = loaded.relation, loaded.unit, loaded._counts
