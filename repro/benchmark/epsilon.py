"""ε of a finished run once more: from what its rounds released, not from what its ledger stated.

The ledger's statement counts only if it is found again here. Covered are the kinds of runs that
the benchmark has: noise shared in one sum, by many hospitals or by one place alone, from each
round's facts; and DP-SGD, from its noise, rate and number of steps.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from repro.accounting import (
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
    compose_epsilon,
    gaussian_sigma,
)
from repro.accounting.checks import ADD_REMOVE, RECORD
from repro.accounting.composition import GAUSSIAN
from repro.errors import InputError
from repro.runs.record import RunRecord

# Relative. The grid's smoothing is left out of the ratio of shares below; a privacy loss
# distribution is bounded on a grid, which follows from how its events are grouped.
EXACT, ON_A_GRID = 1e-6, 1e-3
_STATISTICS = ("mean_share", "moments_share")  # of the budget, of second-order rounds 1 and 2


def events_of(record: RunRecord) -> dict[PrivacyEvent, int]:
    """What a record of the data faced in the run, against the planned coalition; unit: record.

    Raises InputError for a run of an arm that protects no record, and where more hospitals were
    lost than planned.
    """
    settings = record.settings
    shared = settings.get("shared")
    if not settings.get("record_privacy"):
        raise InputError("arm", record.arm, "one that protects a record")
    if not shared:
        row = next(one for one in record.privacy if one["unit"] == RECORD)
        step = PoissonSampledGaussianEvent(row["noise_multiplier"], row["sample_rate"])
        return {step: int(row["steps"])}
    hospitals, known = record.hospitals, int(shared["colluders"])
    planned = hospitals - known - int(shared["drop_outs"])
    found: Counter[PrivacyEvent] = Counter()
    for entry in record.history:
        facts = entry.get("secagg")
        if facts is None:  # before the first round
            continue
        left = int(facts["survivors"]) - known
        if left < planned:
            raise InputError("survivors", facts["survivors"], f"at least {planned + known}")
        # Shares are equal, so the noise of `left` of them is √(left/planned) times the planned.
        multiplier = _planned(record, entry["round"], facts) * math.sqrt(left / planned)
        found[_event(multiplier, record)] += int(facts["steps"])
    return dict(found)


def _planned(record: RunRecord, number: int, facts: dict[str, Any]) -> float:
    """Noise over sensitivity that round ``number`` was planned to leave against the coalition."""
    second = record.settings.get("second_order")
    shares = [second[name] for name in _STATISTICS if second[name] > 0] if second else []
    if number <= len(shares):
        privacy = record.settings["record_privacy"]
        # One release of multiplier 1/μ is (ε, δ)-DP, and shares of the budget are shares of μ².
        mu = 1 / gaussian_sigma(privacy["epsilon"], 1.0, 1, privacy["delta"])
        return 1 / (mu * math.sqrt(shares[number - 1]))
    return float(facts["plan"]["noise_multiplier"])


def _event(multiplier: float, record: RunRecord) -> PrivacyEvent:
    if record.settings.get("second_order"):  # all records take part in every sum
        return GaussianEvent(multiplier)
    rate = record.settings["record_privacy"]["expected_batch"] / record.dataset["train_images"]
    return PoissonSampledGaussianEvent(multiplier, min(1.0, rate))


def epsilon_again(record: RunRecord, stated: float, delta: float) -> float:
    """ε for a record of the data at ``delta``, add/remove (zero-out), from ``events_of``.

    stated: the ledger's. Returns the larger of the two, which are both valid. Raises InputError
    where they differ by more than rounding: then one of them has missed something, and neither is
    written down.
    """
    bound = compose_epsilon(events_of(record), ADD_REMOVE, RECORD, delta)
    found, room = bound.epsilon, EXACT if bound.method == GAUSSIAN else ON_A_GRID
    if not abs(found - stated) <= room * stated:
        raise InputError(
            f"ε of {record.run_id}", stated, f"{found:.6g}, which its rounds amount to"
        )
    return max(found, stated)
