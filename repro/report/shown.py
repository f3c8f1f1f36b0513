"""Which arms a table or figure shows, as they say, and how many images their numbers stand on.

Seeds share one test set, so their spread says nothing of its chance: that is binomial.
"""

from __future__ import annotations

from repro.report.evidence import Evidence
from repro.report.statistics import binomial_error
from repro.runs.arm import Arm, Place
from repro.runs.arms import ARMS
from repro.runs.guarantees import protected_unit, target_epsilon
from repro.runs.record import RunRecord


def shown(place: Place) -> list[tuple[Arm, str]]:
    """The arms shown in ``place`` and their names there.

    Families in the matrix' order. Within one: arms that promise nothing, those that promise a
    record something, the least private first, and those that promise a hospital something.
    """
    families = list(dict.fromkeys(arm.family for arm in ARMS.values()))

    def order(arm: Arm) -> tuple[int, bool, bool, float]:
        target = target_epsilon(arm.name)
        hospital = protected_unit(arm.name) == "hospital"
        return families.index(arm.family), target is not None, hospital, -(target or 0.0)

    arms = [arm for arm in ARMS.values() if place in arm.presentation.names]
    return [(arm, arm.presentation.names[place]) for arm in sorted(arms, key=order)]


def class_order(record: RunRecord) -> list[int]:
    """Classes by their test images, most first: one order for all that is drawn by class."""
    sizes = [sum(row) for row in record.confusion]
    return sorted(range(len(sizes)), key=lambda i: (-sizes[i], -i))


def runs_shown(evidence: Evidence, place: Place) -> list[RunRecord]:
    """The runs of every arm shown in ``place``, of every number of hospitals."""
    return evidence.all_runs(*(arm.name for arm, _ in shown(place)))


def judged_images(record: RunRecord) -> int:
    """Images that the accuracy is a fraction of."""
    return sum(map(sum, record.confusion))


def widest_test_error(records: list[RunRecord]) -> str:
    """The smallest and the largest binomial error of the runs' accuracies; "" without a run."""
    if not records:
        return ""
    errors = [binomial_error(r.final_accuracy, judged_images(r)) for r in records]
    low, high = (f"{100 * error:.2f}" for error in (min(errors), max(errors)))
    points = low if low == high else f"{low} to {high}"
    return f"{points} points ({_span({judged_images(r) for r in records})} test images)"


def trained_on(evidence: Evidence, arm: str) -> str:
    """``9,562 / 9,560 images``, for each number of hospitals; "" where no record says it."""
    found = []
    for hospitals in evidence.hospital_counts:
        told = (run.dataset.get("train_images") for run in evidence.runs(arm, hospitals))
        sizes = {int(size) for size in told if size is not None}
        found += [_span(sizes)] if sizes else []
    return f"{' / '.join(found)} images" if found else ""


def held_out(records: list[RunRecord]) -> str:
    """``20 % or 0 %``: of every hospital's images, for validation."""
    parts = {r.settings.get("partition", {}).get("validation_fraction") for r in records} - {None}
    return " or ".join(f"{100 * part:g} %" for part in sorted(parts, reverse=True))


def _span(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
