"""What arms promise and the ledgers of their runs state, as a reader sees it. It computes no ε."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from repro.report.table import NOT_RUN
from repro.runs.arms import ARMS
from repro.runs.record import RunRecord
from repro.runs.settings import UpdatePrivacy

REPLACE = "replace_one"
RELATIONS = {"add_remove": "add/remove", REPLACE: "replace"}


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


def protected_unit(arm: str) -> str | None:
    """Whom the arm's noise is meant to protect, record or hospital; None without noise."""
    if ARMS[arm].trainer == "dpsgd":
        return "record"
    return "hospital" if ARMS[arm].private else None


def target_epsilon(arm: str) -> float | None:
    """The total ε an arm's noise is calibrated to, for its unit; None where it is to none."""
    if ARMS[arm].noise == "calibrated":
        return UpdatePrivacy().epsilon
    return ARMS[arm].epsilon


def promise(arm: str) -> str:
    """``ε = 6 for a record``: what a calibrated arm promises."""
    return f"ε = {target_epsilon(arm):g} for a {protected_unit(arm)}"


def statements(record: RunRecord, unit: str | None = None) -> list[Statement]:
    found = [Statement.of(entry) for entry in record.privacy]
    return [s for s in found if unit in (None, s.unit)]


def total_epsilon(record: RunRecord, unit: str) -> float:
    """The total ε for adding or removing one ``unit``; ∞ where the ledger states none.

    Of several views the largest counts: it holds without trusting the aggregation.
    """
    totals = [s.total for s in statements(record, unit) if s.relation != REPLACE]
    return max((_or_infinity(total) for total in totals), default=math.inf)


def warnings_of(records: Iterable[RunRecord]) -> list[str]:
    """What the runs' ledgers warn of, each once."""
    every = (w for r in records for entry in r.privacy for w in entry.get("warnings", ()))
    return list(dict.fromkeys(every))


def epsilon_cell(records: list[RunRecord], unit: str) -> str:
    """``round / total`` for each view and relation the ledger states, of the worst seed."""
    if not records:
        return NOT_RUN
    worst: dict[tuple[str, str], tuple[float, float]] = {}
    for record in records:
        for s in statements(record, unit):
            now = (_or_infinity(s.per_round), _or_infinity(s.total))
            before = worst.get((s.view, s.relation), (0.0, 0.0))
            worst[s.view, s.relation] = max(before, now, key=lambda pair: pair[1])
    if not worst:
        return "∞ (not stated)" if ARMS[records[0].arm].private else "∞"
    if all(math.isinf(total) for _, total in worst.values()):
        return "∞"
    views = {view for view, _ in worst}
    lines = []
    for (view, relation), (per_round, total) in worst.items():
        words = [RELATIONS.get(relation, relation)]
        if len(views) > 1:
            words.append("only the sum seen" if "after secure" in view else "each update seen")
        about = ", ".join(word for word in words if word)
        lines.append(f"{epsilon(per_round)} / {epsilon(total)}" + (f" ({about})" if about else ""))
    return "\n".join(dict.fromkeys(lines))


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
