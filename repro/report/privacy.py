"""ε as the tables print it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from repro.accounting.ledger import PLAIN_VIEW, SECURE_VIEW
from repro.report.table import NOT_RUN
from repro.runs.arms import ARMS
from repro.runs.guarantees import REPLACE, or_infinity, statements
from repro.runs.record import RunRecord

RELATIONS = {"add_remove": "add/remove", REPLACE: "replace"}
SEEN = {PLAIN_VIEW.name: "each update seen", SECURE_VIEW.name: "only the sum seen"}


def epsilon_cell(records: list[RunRecord], unit: str) -> str:
    """``round / total`` for each view and relation the ledger states, of the worst seed."""
    if not records:
        return NOT_RUN
    worst: dict[tuple[str, str], tuple[float, float]] = {}
    for record in records:
        for s in statements(record, unit):
            now = (or_infinity(s.per_round), or_infinity(s.total))
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
            words.append(SEEN.get(view, view))
        about = ", ".join(word for word in words if word)
        lines.append(f"{epsilon(per_round)} / {epsilon(total)}" + (f" ({about})" if about else ""))
    return "\n".join(dict.fromkeys(lines))


def audit_terms(found: Iterable[dict[str, Any]]) -> str:
    """``at 95 % confidence, 10 hospitals``: under which terms audits were made, each once."""
    found = list(found)
    sure = "/".join(dict.fromkeys(f"{100 * one['confidence']:.4g}" for one in found))
    hospitals = "/".join(dict.fromkeys(str(one["hospitals"]) for one in found))
    return f"at {sure} % confidence, {hospitals} hospitals" if found else "none was sought"


def epsilon(value: float | None) -> str:
    """ε with three significant digits, ``∞``, or ``?`` where it is not stated."""
    if value is None:
        return "?"
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
