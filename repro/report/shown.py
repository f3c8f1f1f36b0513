"""Which arms a table or figure shows, in which order and under which names: as they say."""

from __future__ import annotations

from repro.report.evidence import Evidence
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
