"""ε of a finished run once more: from what its rounds released, not from what its ledger stated.

The ledger's statement counts only if it is found again here. Covered are the kinds of runs that
the benchmark has: noise shared in one sum, by many hospitals or by one place alone, from each
round's facts; and DP-SGD, from its noise, rate and number of steps.
"""

from __future__ import annotations

from repro.accounting import compose_epsilon
from repro.accounting.checks import ADD_REMOVE, RECORD
from repro.accounting.composition import GAUSSIAN
from repro.errors import InputError
from repro.report.label.rebuild import COALITION, EXACT, ON_A_GRID, one_kind, released
from repro.runs.record import RunRecord


def epsilon_again(record: RunRecord, stated: float, delta: float) -> float:
    """ε for a record of the data at ``delta``, add/remove (zero-out), against the planned
    coalition.

    stated: the ledger's. Returns the larger of the two, which are both valid. Raises InputError
    for a run of an arm that protects no record, and where the two differ by more than rounding:
    then one of them has missed something, and neither is written down.
    """
    row = next((one for one in record.privacy if one["unit"] == RECORD), None)
    if row is None or not record.settings.get("record_privacy"):
        raise InputError("arm", record.arm, "one that protects a record")
    counts = released(record, COALITION) if record.settings.get("shared") else one_kind(row)
    if counts is None:
        raise InputError("arm", record.arm, "one whose rounds say what they released")
    bound = compose_epsilon(counts, ADD_REMOVE, RECORD, delta)
    found, room = bound.epsilon, EXACT if bound.method == GAUSSIAN else ON_A_GRID
    if not abs(found - stated) <= room * stated:
        raise InputError(
            f"ε of {record.run_id}", stated, f"{found:.6g}, which its rounds amount to"
        )
    return max(found, stated)
