"""From a row of a run's ledger back to the events it states ε of, and ε from them once more.

A row names one noise, one sample rate and the number of steps where all steps are alike. Where
releases differ (second-order steps: two statistics, then steps) they follow from the settings, and
who took part from the history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from repro.accounting import (
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
    compose_epsilon,
    gaussian_sigma,
)
from repro.accounting.checks import RECORD
from repro.accounting.composition import ACCOUNTANTS, BEST, GAUSSIAN
from repro.accounting.ledger import UNPROTECTED
from repro.errors import InputError
from repro.runs.record import RunRecord

EXACT = 1e-6  # relative, of ε, where the proof is exact
ON_A_GRID = 1e-3  # where an accountant's grid may be off by as much
_PLAN_TOLERANCE = 1e-6  # of a noise multiplier; plans add 1e-9 for rounding
COALITION = "coalition of "

Counts = dict[PrivacyEvent, int]


@dataclass(frozen=True)
class Recomputed:
    """counts: event → how often it was composed. epsilon: theirs, by the row's own accountant."""

    counts: Counts
    epsilon: float


def recompute(record: RunRecord, row: dict[str, Any]) -> Recomputed | None:
    """ε of ``row`` once more; None where the record does not say what was spent.

    Raises ``InputError`` where the two differ: a label would repeat a number that is not true.
    """
    counts = one_kind(row) or released(record, row["view"], row["unit"])
    if counts is None:
        return None
    method = row.get("method") or _method(row["accountant"])
    bound = compose_epsilon(
        counts,
        row["relation"],
        row["unit"],
        row["delta"],
        accountant=BEST if method == GAUSSIAN else method,
    )
    stated = float(row["epsilon_total"])
    tolerance = EXACT if method == GAUSSIAN else ON_A_GRID
    if not math.isclose(bound.epsilon, stated, rel_tol=tolerance):
        raise InputError(
            f"epsilon_total of run {record.run_id} ({row['view']}, {row['relation']})",
            stated,
            f"{bound.epsilon:.6g}, which what it spent comes to; a label is only made of a record "
            "that agrees with its own ledger",
        )
    return Recomputed(counts, bound.epsilon)


def _method(accountant: str) -> str:
    """Of a row from before rows named their method."""
    return next(name for name, words in ACCOUNTANTS.items() if words == accountant)


def one_kind(row: dict[str, Any]) -> Counts | None:
    """The events of a row whose steps are all alike."""
    noise, rate = row.get("noise_multiplier"), row.get("sample_rate")
    if noise is None:
        return None
    if rate is None:
        return {GaussianEvent(noise, unit=row["unit"]): row["steps"]}
    return {PoissonSampledGaussianEvent(noise, rate, unit=row["unit"]): row["steps"]}


def released(record: RunRecord, view: str, unit: str = RECORD) -> Counts | None:
    """What ``view`` saw of the sums of a run whose noise is shared; None where the history does not
    say who was in each, or whose trials they were.

    With K hospitals, t colluding and d lost, noise is planned for m = K − t − d shares; a view in
    which another number is left sees √(left/m) of it (docs/shared-noise.md). What the grid takes
    of it, a part in 10⁹, is within the tolerance.
    """
    settings = record.settings
    if settings["trainer"] not in ("shared-newton", "shared-dpsgd"):
        return None
    if (settings["secagg"] or {}).get("drop_rate", 0) > 0:
        return None
    shared = settings["shared"]
    planned = record.hospitals - shared["colluders"] - shared["drop_outs"]
    counts: Counts = {}
    for entry in record.history:
        facts = entry.get("secagg")
        if facts is None:  # round 0: nothing was released
            continue
        left = _left(view, int(facts["survivors"]), int(shared["colluders"]))
        if left:
            noise = _planned(record, entry["round"], facts) * math.sqrt(left / planned)
            event = _event(record, noise, unit)
            counts[event] = counts.get(event, 0) + int(facts["steps"])
    return counts


def _planned(record: RunRecord, number: int, facts: dict[str, Any]) -> float:
    """Noise over sensitivity that round ``number`` was planned to leave against the coalition.

    Of second-order steps it is what the round's share of μ² gives (docs/second-order.md), and a
    round whose plan says otherwise is refused.
    """
    second, private = record.settings["second_order"], record.settings["record_privacy"]
    plan = facts.get("plan")
    if second is None:
        return float(facts["plan"]["noise_multiplier"])
    # A single release of multiplier 1/μ is exactly (ε, δ)-DP; shares of μ² add up (Dong, Roth, Su
    # 2022, Corollary 3.3).
    mu = 1 / gaussian_sigma(private["epsilon"], 1.0, 1, private["delta"])
    # These come first, a round each; no second moments, no round.
    statistics = [share for share in (second["mean_share"], second["moments_share"]) if share > 0]
    step = (1 - sum(statistics)) / (record.settings["rounds"] - len(statistics))
    noise = 1 / (mu * math.sqrt((statistics + [step] * number)[number - 1]))
    if plan and not math.isclose(plan["noise_multiplier"], noise, rel_tol=_PLAN_TOLERANCE):
        field = f"noise_multiplier of run {record.run_id}"
        raise InputError(field, plan["noise_multiplier"], f"{noise:.9g}, its share of the budget")
    return float(plan["noise_multiplier"]) if plan else noise


def _event(record: RunRecord, noise: float, unit: str) -> PrivacyEvent:
    if record.settings["second_order"]:  # all records take part in every sum
        return GaussianEvent(noise, unit=unit)
    rate = record.settings["record_privacy"]["expected_batch"] / record.dataset["train_images"]
    return PoissonSampledGaussianEvent(noise, min(1.0, rate), unit=unit)


def _left(view: str, survivors: int, colluders: int) -> int:
    """Shares of the noise in a sum that ``view`` does not know; 0 where it saw no sum."""
    if view == UNPROTECTED:
        return 1  # a failed sum's inputs had been sent
    if not survivors:
        return 0
    return max(1, survivors - colluders) if view.startswith(COALITION) else survivors
