"""Table 9: AUC, F1, balanced accuracy, recall per class and calibration, the recommended arm first.

Command: ``repro table 9``. Cost and hardware: seconds; the runs are Table 1's. What needs every
image's scores (AUC, calibration, paired tests) is of the arms whose scores were kept, which every
run does now; the rest follows from any record's confusion matrix. Expected: the recommended arm's
AUC above 0.99, its worst class several points below its accuracy, and differences between good arms
that 3,421 test images can tell from a third of a point on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from repro.report import clinical
from repro.report.evidence import Evidence
from repro.report.honest import Finding, recommended
from repro.report.shown import judged_images, shown
from repro.report.sources import Sources
from repro.report.statistics import Summary, percent, percent_interval
from repro.report.table import Column, Table
from repro.runs.arm import Arm
from repro.runs.arms import ARMS
from repro.runs.record import RunRecord

NOT_KEPT = "–"


class Judged(NamedTuple):
    """An arm's runs with one number of hospitals, by seed."""

    arm: Arm
    hospitals: int
    runs: list[RunRecord]
    scores: Mapping[int | None, tuple[np.ndarray, np.ndarray]]  # seed → (logits, labels), if kept

    @property
    def images(self) -> int:
        return judged_images(self.runs[0])

    def over_matrices(self, measure: Callable[[Any], float]) -> Summary | None:
        return Summary.of([measure(run.confusion) for run in self.runs])

    def over_scores(self, measure: Callable[[np.ndarray, np.ndarray], float]) -> Summary | None:
        """Of (probabilities, labels), over the seeds whose scores were kept."""
        return Summary.of([measure(clinical.probabilities(z), y) for z, y in self.scores.values()])


def build(sources: Sources) -> list[Table]:
    rows = judged(sources)
    used = sources.evidence.caption([run for row in rows for run in row.runs])
    return [
        _measures(sources.evidence, rows, used),
        _recalls(sources.evidence, rows, used),
        _tests(rows, used),
    ]


def judged(sources: Sources) -> list[Judged]:
    """The answer's arms and all whose scores were kept, by hospitals, the recommended one first."""
    evidence, first = sources.evidence, recommended(sources.evidence)
    answers = {arm.name for arm, _ in shown("answer")}
    found = []
    for arm in sorted(ARMS.values(), key=lambda arm: arm != first):
        for hospitals in evidence.hospital_counts:
            runs = evidence.runs(arm.name, hospitals)
            kept = {run.seed: scored for run in runs if (scored := sources.scores(run))}
            if kept or (runs and arm.name in answers):
                found.append(Judged(arm, hospitals, runs, kept))
    return found


def clinical_finding(sources: Sources) -> list[Finding]:
    """For the answer: the recommended arm in one sentence; nothing where none ran."""
    first = recommended(sources.evidence)
    rows = [row for row in judged(sources) if row.arm == first]
    if not rows:
        return []

    def each(measure: Callable[[Judged], Summary | None]) -> str:
        found = [measure(row) for row in rows]
        return " / ".join(NOT_KEPT if one is None else f"{100 * one.mean:.1f}" for one in found)

    names = sources.evidence.class_names
    worst = [clinical.worst_class([run.confusion for run in row.runs]) for row in rows]
    least = " / ".join(f"{100 * recall:.1f} ({names[index]})" for index, recall in worst)
    return [
        Finding(
            "For a clinician",
            f"(in %, {' / '.join(str(row.hospitals) for row in rows)} hospitals, of "
            f"{rows[0].arm.name}; Table 9): AUC {each(lambda row: row.over_scores(_auc))}, "
            f"balanced accuracy {each(lambda row: row.over_matrices(clinical.balanced_accuracy))}, "
            f"the class found least {least}, calibration error "
            f"{each(lambda row: row.over_scores(clinical.calibration_error))}.",
        )
    ]


def _auc(shares: np.ndarray, labels: np.ndarray) -> float:
    return float(np.nanmean(clinical.auc(shares, labels)))


def _cell(value: Summary | None, seeds: int) -> str:
    """``95.1 ± 0.2``; with how many of the seeds, where scores of some were not kept."""
    if value is None:
        return NOT_KEPT
    return percent(value) + (f"\n({value.n} of {seeds} seeds)" if value.n < seeds else "")


def _measures(evidence: Evidence, rows: list[Judged], caption: str) -> Table:
    names = evidence.class_names

    numbers: list[dict[str, Any]] = []
    cells = []
    for row in rows:
        found = {
            "accuracy": Summary.of([run.final_accuracy for run in row.runs]),
            "balanced": row.over_matrices(clinical.balanced_accuracy),
            "f1": row.over_matrices(clinical.macro_f1),
            "auc": row.over_scores(_auc),
            "ece": row.over_scores(clinical.calibration_error),
        }
        lowest, recall = clinical.worst_class([run.confusion for run in row.runs])
        cells.append(
            {
                "arm": row.arm.name,
                "hospitals": str(row.hospitals),
                **{key: _cell(value, len(row.runs)) for key, value in found.items()},
                "worst": f"{100 * recall:.1f} ({names[lowest]})",
                "images": f"{row.images:,}",
                "n": str(len(row.runs)),
            }
        )
        means = {key: value.mean if value else None for key, value in found.items()}
        numbers.append({"arm": row.arm.name, "hospitals": row.hospitals, **means})
    return Table(
        name="table9",
        title="Table 9. Measures for a clinician (all in %)",
        columns=[
            Column("arm", "arm"),
            Column("hospitals", "hospitals", number=True),
            Column("auc", "AUC, one class against the rest", number=True),
            Column("balanced", "balanced accuracy", number=True),
            Column("worst", "recall of the class found least", number=True),
            Column("f1", "macro-F1", number=True),
            Column("ece", "calibration error", number=True),
            Column("accuracy", "accuracy", number=True),
            Column("images", "test images", number=True),
            Column("n", "seeds", number=True),
        ],
        rows=cells,
        caption=caption,
        notes=[
            "Mean ± standard deviation over seeds, last round. AUC, F1 and balanced accuracy (mean "
            "recall) are means over the classes, so that a rare class counts as much as a "
            "frequent one.",
            f"Calibration error: {clinical.BINS} bins; how far the probability given to the "
            "predicted class is from how often it is right, on average.",
            f"“{NOT_KEPT}”: the run is older than the rule that keeps every test image's scores "
            "beside its record. What the classes' recalls are, and what differences the test "
            "images can tell, Tables 9b and 9c say.",
        ],
        data=numbers,
    )


def _recalls(evidence: Evidence, rows: list[Judged], caption: str) -> Table:
    shown_there = {arm.name for arm, _ in shown("recall")}
    cells = []
    for row in rows:
        if not row.scores and row.arm != rows[0].arm and row.arm.name not in shown_there:
            continue  # the figure's arms, and those whose scores were kept
        means = np.mean([clinical.recalls(run.confusion) for run in row.runs], axis=0)
        cells.append(
            {"arm": row.arm.name, "hospitals": str(row.hospitals)}
            | {
                f"c{i}": "–" if math.isnan(mean) else f"{100 * mean:.1f}\n"
                + percent_interval(clinical.wilson(mean, sum(size)), digits=1)
                for i, (mean, size) in enumerate(zip(means, row.runs[0].confusion, strict=True))
            }
        )  # fmt: skip
    return Table(
        name="table9-recall",
        title="Table 9b. Recall of every class (%)",
        columns=[
            Column("arm", "arm"),
            Column("hospitals", "hospitals", number=True),
            *(Column(f"c{i}", name, number=True) for i, name in enumerate(evidence.class_names)),
        ],
        rows=cells,
        caption=caption,
        notes=[
            "Mean over seeds; in brackets Wilson's 95 % interval for as many images as the class "
            "has in the test split: what other images like these would change."
        ],
    )


def _tests(rows: list[Judged], caption: str) -> Table:
    """The recommended arm against every other, on the same images with the same seeds."""
    cells, numbers = [], []
    firsts = {row.hospitals: row for row in rows if row.arm == rows[0].arm}
    for row in rows:
        first = firsts.get(row.hospitals, row)
        seeds = [seed for seed in first.scores if seed in row.scores]
        if first is row or not seeds or not _alike(first, row, seeds):
            continue
        left, right = (
            np.stack([z.argmax(axis=1) == y for z, y in (one.scores[seed] for seed in seeds)])
            for one in (first, row)
        )
        found = clinical.paired(left, right)
        low, high = found.interval
        cells.append(
            {
                "against": row.arm.name,
                "hospitals": str(row.hospitals),
                "points": _points(found.mean),
                "interval": f"{_points(low)} to {_points(high)}",
                "p": f"{found.p:.3f}" if found.p >= 1e-3 else "< 0.001",
                "only": f"{100 * found.first_only:.1f} / {100 * found.second_only:.1f}",
                "n": f"{len(seeds)} × {len(left[0]):,}",
            }
        )
        numbers.append({"against": row.arm.name, "hospitals": row.hospitals, **vars(found)})
    if not cells:
        cells = [{"against": "no two arms whose scores were kept, with a common seed"}]
    name = rows[0].arm.name if rows else "the recommended arm"
    return Table(
        name="table9-tests",
        title=f"Table 9c. Points of accuracy of {name} over other arms",
        columns=[
            Column("against", "against"),
            Column("hospitals", "hospitals", number=True),
            Column("points", "points", number=True),
            Column("interval", "95 % interval", number=True),
            Column("p", "p", number=True),
            Column("only", "right by it alone / by the other alone (%)", number=True),
            Column("n", "seeds × images", number=True),
        ],
        rows=cells,
        caption=caption,
        notes=[
            "Paired t test of which images each has right, seeds and images both as random "
            "(variance of the images' means and of the seeds' means, added; degrees of freedom "
            "after Satterthwaite). p is not corrected for the number of rows."
        ],
        data=numbers,
    )


def _points(difference: float) -> str:
    return f"{100 * difference:+.2f}".replace("-", "−")


def _alike(first: Judged, row: Judged, seeds: list[int | None]) -> bool:
    return all(np.array_equal(first.scores[seed][1], row.scores[seed][1]) for seed in seeds)
