"""What one arm has over another: paired by seed, and only between runs that are alike.

Runs are alike when the same network trained for the same number of local epochs and was judged
on the same images. Anything else is refused: a difference would mix what is asked with what is
not. A difference whose interval holds zero is called *not resolved*, whatever its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro.report.evidence import Evidence
from repro.report.statistics import Summary
from repro.report.table import NOT_RUN
from repro.runs.record import RunRecord

NOT_RESOLVED = "not resolved"


@dataclass(frozen=True)
class Paired:
    """Points of accuracy of one arm over another, seed by seed."""

    seeds: tuple[int | None, ...]
    points: tuple[float, ...]

    @property
    def summary(self) -> Summary:
        summary = Summary.of(self.points)
        assert summary is not None  # there is at least one seed
        return summary

    @property
    def resolved(self) -> bool:
        """Does Student's 95 % interval for the mean leave zero out? Never with one seed."""
        bounds = self.summary.interval()
        return bounds is not None and not bounds[0] <= 0 <= bounds[1]

    def __str__(self) -> str:
        """``−20.3 (−31.9, −19.1, −9.9)``: mean and seeds; and whether seeds can tell."""
        if len(self.points) == 1:
            return f"{signed(self.points[0])} (one seed: no interval)"
        if not any(self.points):
            return "0.0 (each seed)"
        unresolved = "" if self.resolved else f"; {NOT_RESOLVED}"
        return f"{signed(self.summary.mean)} ({', '.join(map(signed, self.points))}{unresolved})"


def signed(points: float) -> str:
    """``−0.5``, ``+1.2``, ``0.0``."""
    shown = f"{points:+.1f}".replace("-", "−")
    return "0.0" if shown in ("+0.0", "−0.0") else shown


def local_epochs(record: RunRecord) -> float:
    """Passes over a hospital's training images, in all rounds."""
    return float(record.settings["local"]["epochs"] * record.rounds)


def likeness(record: RunRecord) -> tuple[Any, ...]:
    """What two runs must share to be compared."""
    settings = record.settings
    model = {key: value for key, value in record.model.items() if key != "parameters"}
    return (
        tuple(sorted(model.items())),
        round(local_epochs(record), 9),
        settings.get("train_stride"),
        settings.get("test_stride"),
        record.dataset.get("fingerprint"),
    )


def compare(evidence: Evidence, arm: str, other: str, hospitals: int) -> Paired | None:
    """Accuracy of ``arm`` over ``other`` in points, last round; None without a common seed.

    Raises ValueError where the runs are not alike.
    """
    left = {run.seed: run for run in evidence.runs(arm, hospitals)}
    right = {run.seed: run for run in evidence.runs(other, hospitals)}
    seeds = [seed for seed in left if seed in right]
    for seed in seeds:
        if likeness(left[seed]) != likeness(right[seed]):
            raise ValueError(
                f"{arm} and {other} are not alike: {likeness(left[seed])}, {likeness(right[seed])}"
            )
    if not seeds:
        return None
    return Paired(
        tuple(seeds), tuple(100 * (left[s].final_accuracy - right[s].final_accuracy) for s in seeds)
    )


def compared(evidence: Evidence, arm: str, other: str) -> str:
    """``compare`` for every number of hospitals: ``−0.5 (…) / +0.2 (…)``, or ``not run``."""
    shown = [compare(evidence, arm, other, hospitals) for hospitals in evidence.hospital_counts]
    parts = [NOT_RUN if one is None else str(one) for one in shown]
    return NOT_RUN if set(parts) == {NOT_RUN} else " / ".join(parts)
