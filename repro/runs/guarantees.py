"""What arms promise, and what the ledgers of their runs state. Nothing here computes an ε."""

from __future__ import annotations

import math
from collections.abc import Iterable

from repro.accounting.ledger import UNPROTECTED
from repro.runs.arm import promised
from repro.runs.arms import ARMS
from repro.runs.record import RunRecord
from repro.runs.settings import UpdatePrivacy

REPLACE = "replace_one"


def protected_unit(arm: str) -> str | None:
    """Whom the arm's noise is meant to protect, record or hospital; None without noise."""
    if ARMS[arm].epsilon is not None:
        return "record"
    return "hospital" if ARMS[arm].private else None


def target_epsilon(arm: str) -> float | None:
    """The total ε an arm's noise is calibrated to, for its unit; None where it is to none."""
    if ARMS[arm].noise == "calibrated":
        return UpdatePrivacy().epsilon
    return ARMS[arm].epsilon


def promise(arm: str) -> str:
    """``ε = 6 for a record``: what a calibrated arm promises."""
    target, unit = target_epsilon(arm), protected_unit(arm)
    assert target is not None, arm
    assert unit is not None, arm
    return promised(target, unit)


def total_epsilon(record: RunRecord, unit: str, *, replaced: bool = False) -> float:
    """The total ε for one ``unit`` that contributes or does not; ∞ where the ledger states none.

    (Zero-out, since hospital sizes are public: add_remove's number.) replaced: for one that is
    exchanged for any other, instead.
    Of several views the largest counts: it holds without trusting the aggregation. Only where the
    arm's noise itself rests on secure aggregation, the view in which that fails is left out.
    """
    totals = [
        float(row["epsilon_total"])
        for row in record.privacy
        if row["unit"] == unit
        and (row["relation"] == REPLACE) == replaced
        and row["view"] != UNPROTECTED
    ]
    return max(totals, default=math.inf)


def warnings_of(records: Iterable[RunRecord]) -> list[str]:
    """What the runs' ledgers warn of, each once."""
    every = (w for r in records for entry in r.privacy for w in entry.get("warnings", ()))
    return list(dict.fromkeys(every))


def or_infinity(value: float | None) -> float:
    return math.inf if value is None else value
