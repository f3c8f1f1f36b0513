"""The ledger's statements of a run, as a reader sees them. Nothing is computed here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from repro.arms import ARMS
from repro.results.record import RunRecord

UNITS = ("record", "hospital")


@dataclass(frozen=True)
class Statement:
    """One guarantee: ε for one unit, a round and in total, at δ."""

    unit: str  # "record" | "hospital"
    view: str  # what the adversary sees, e.g. one hospital's update or the sum
    relation: str  # neighbouring relation
    delta: float | None
    per_round: float | None
    total: float | None

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Statement:
        return cls(
            unit=str(entry.get("unit", "")),
            view=str(entry.get("view", "")),
            relation=str(entry.get("relation", "")),
            delta=_number(entry.get("delta")),
            per_round=_number(entry.get("epsilon_round")),
            total=_number(entry.get("epsilon_total", entry.get("epsilon"))),
        )


def statements(record: RunRecord, unit: str | None = None) -> list[Statement]:
    found = [Statement.of(entry) for entry in record.privacy]
    return [s for s in found if unit in (None, s.unit)]


def total_epsilon(record: RunRecord, unit: str) -> float:
    """The smallest total ε the ledger states for ``unit``; ∞ where it states none."""
    totals = [s.total for s in statements(record, unit) if s.total is not None]
    return min(totals, default=math.inf)


def epsilon_cell(records: list[RunRecord], unit: str) -> str:
    """``round / total`` for each view the ledger knows, the worst seed; ``∞`` without any."""
    if not records:
        return "not run"
    worst: dict[tuple[str, str], tuple[float, float]] = {}
    for record in records:
        for s in statements(record, unit):
            key = (s.view, s.relation)
            now = (_or_infinity(s.per_round), _or_infinity(s.total))
            worst[key] = max(worst.get(key, (0.0, 0.0)), now, key=lambda pair: pair[1])
    if not worst:
        return "∞" if not ARMS[records[0].arm].private else "∞ (not stated)"
    several = len(worst) > 1
    lines = []
    for (view, relation), (per_round, total) in worst.items():
        about = ", ".join(word.replace("_", " ") for word in (view, relation) if word)
        lines.append(
            f"{epsilon(per_round)} / {epsilon(total)}"
            + (f" ({about})" if several and about else "")
        )
    return "\n".join(lines)


def epsilon(value: float | None) -> str:
    """ε with three significant digits, ``∞``, or ``?`` where it is not stated."""
    if value is None:
        return "?"
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: Any) -> float | None:
    if value is None:
        return None
    return float(value)  # "inf" too


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value
