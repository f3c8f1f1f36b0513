"""ε as the tables print it."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from repro.accounting import PoissonSampledGaussianEvent, RDPAccountant
from repro.accounting.ledger import PLAIN_VIEW, SECURE_VIEW, UNPROTECTED
from repro.formatting import small
from repro.report.table import NOT_RUN
from repro.runs.arms import ARMS
from repro.runs.guarantees import REPLACE, protected_unit, total_epsilon
from repro.runs.record import RunRecord

RELATIONS = {"add_remove": "add/remove", REPLACE: "replace"}
SEEN = {PLAIN_VIEW.name: "each update seen", SECURE_VIEW.name: "only the sum seen"}


def epsilon_cell(records: list[RunRecord], unit: str) -> str:
    """``round / total`` for each view and relation the ledger states, of the worst seed."""
    if not records:
        return NOT_RUN
    worst: dict[tuple[str, str], tuple[float, float]] = {}
    for record in records:
        for row in (row for row in record.privacy if row["unit"] == unit):
            said, now = (row["view"], row["relation"]), (row["epsilon_round"], row["epsilon_total"])
            worst[said] = max(worst.get(said, (0.0, 0.0)), now, key=lambda pair: float(pair[1]))
    if not worst:
        return "∞ (not stated)" if ARMS[records[0].arm].private else "∞"
    if all(math.isinf(total) for _, total in worst.values()):
        return "∞"
    several = len({view for view, _ in worst}) > 1
    lines = [
        f"{epsilon(per_round)} / {epsilon(total)} ({RELATIONS.get(relation, relation)}"
        + (f", {SEEN.get(view, view)})" if several else ")")
        for (view, relation), (per_round, total) in worst.items()
    ]
    return "\n".join(dict.fromkeys(lines))


def replaced_epsilon(records: Iterable[RunRecord], unit: str) -> float:
    """The largest total ε of the runs for exchanging one ``unit`` for any other.

    The ledgers' own where they state it. Poisson sampling has no proof of its own under that
    relation: there by group privacy, where noise is shared and the row's schedule is that of all
    hospitals. (With local noise each has its own, and the one that is worst for this relation need
    not be the row's.) ∞ where neither is known.
    """
    return max((_replaced(record, unit) for record in records), default=math.inf)


def _replaced(record: RunRecord, unit: str) -> float:
    stated = total_epsilon(record, unit, replaced=True)
    if math.isfinite(stated) or unit != "record":
        return stated
    rows = [
        row
        for row in record.privacy
        if (row["unit"], row["relation"]) == (unit, "add_remove") and row["view"] != UNPROTECTED
    ]
    return max(map(exchanged_by_group, rows), default=math.inf)


def exchanged_by_group(row: dict[str, Any]) -> float:
    """``exchanged`` for a ledger's row; ∞ where its schedule is not that of all hospitals."""
    schedule = [row.get(key) for key in ("noise_multiplier", "sample_rate", "steps", "delta")]
    if "shared noise" not in row.get("mechanism", "") or None in schedule:
        return math.inf
    return exchanged(*schedule)


@functools.cache
def exchanged(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """ε at δ for exchanging a record, of Poisson-sampled Gaussian steps; ∞ if none is found.

    To exchange is to take one away and put another there. Both are (ε, δ′) by the accountant, so
    together (2ε, (1 + e^ε)·δ′) (Vadhan 2017, *The complexity of differential privacy*, Lemma 2.2).
    Any δ′ with (1 + e^ε)·δ′ ≤ δ will do; the search ends near the largest.
    """
    steps_of_all = RDPAccountant().compose(
        PoissonSampledGaussianEvent(noise_multiplier, sample_rate), steps
    )
    inner = delta
    for _ in range(100):
        once = steps_of_all.epsilon(inner)[0]
        if once > 300:  # e^ε would overflow; such an ε limits nothing
            return math.inf
        if (1 + math.exp(once)) * inner <= delta:
            return 2 * once
        inner = 0.99 * delta / (1 + math.exp(once))
    return math.inf


def epsilon_of_arm(arm: str, runs: Sequence[RunRecord]) -> str:
    """``true_epsilon`` for the unit that the arm protects; ∞ without noise, or ``not run``."""
    unit = protected_unit(arm)
    if unit is None:
        return epsilon(math.inf)
    return true_epsilon(runs, unit) if runs else NOT_RUN


def deltas(runs: Iterable[RunRecord]) -> list[str]:
    """Every δ of the runs' ledgers, the smallest first."""
    found = {float(row["delta"]) for run in runs for row in run.privacy if row.get("delta")}
    return [small(delta) for delta in sorted(found)]


def true_epsilon(runs: Sequence[RunRecord], unit: str) -> str:
    """``5.81 (record; 13.5 exchanged)``: the largest total ε of the runs (one at least), for a
    ``unit`` that contributes or not and for one exchanged for another."""
    exchange = replaced_epsilon(runs, unit)
    beside = f"; {epsilon(exchange)} exchanged" if math.isfinite(exchange) else ""
    return f"{epsilon(max(total_epsilon(run, unit) for run in runs))} ({unit}{beside})"


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
