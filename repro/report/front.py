"""README's few rows: what the paper says, what its code does, what honest privacy gives.

A row is an arm that names itself for this place. Its runs are those of the profile that trains
most: the paper's own setting, then a night's training, then the matrix'. Which it was stands in
the row, so nobody takes a small network's number for the paper's.
"""

from __future__ import annotations

from repro.formatting import small
from repro.report.comparison import compare, signed
from repro.report.evidence import Evidence, data_caption
from repro.report.paper_setting import READINGS
from repro.report.shown import shown, widest_test_error
from repro.report.sources import OTHERS, PAPER, Sources
from repro.report.statistics import percent
from repro.report.table import NOT_RUN, Column, Table
from repro.report.verdicts import departures
from repro.runs.arm import PLAIN, POOLED_DELTA, PRIVATE, Arm
from repro.runs.guarantees import protected_unit, target_epsilon
from repro.runs.profiles import PROFILES
from repro.runs.record import RunRecord

# In the order of how much they train; the evidence's own profile comes last.
LONGEST_FIRST = (PAPER, *(name for name in OTHERS if name != PAPER))


def front_table(sources: Sources) -> Table:
    """At most a row an arm: method, ε, accuracy by number of hospitals, and what privacy cost."""
    counts = sources.evidence.hospital_counts
    rows, used = [_claim(sources, counts)], list[RunRecord]()
    for arm, what, evidence in front_rows(sources):
        used += [run for k in counts for run in evidence.runs(arm.name, k)]
        rows.append(_row(evidence, arm, what, counts))
    data = data_caption(used[0].dataset) if used else sources.evidence.dataset_caption
    return Table(
        name="front",
        title="What was claimed, and what was measured",
        columns=[
            Column("what", "method"),
            Column("epsilon", "privacy"),
            *(Column(f"k{k}", f"{k} hospitals", number=True) for k in counts),
            Column("cost", "privacy cost (points)", number=True),
        ],
        rows=rows,
        caption="Test accuracy (%), last round; ± over seeds (none: one seed); binomial error "
        f"{widest_test_error(used) or NOT_RUN}. Training images: {_images(used)}. "
        f"Private rows: secure aggregation, δ = {small(POOLED_DELTA)}. {data}",
    )


def _images(runs: list[RunRecord]) -> str:
    """``9,560, 9,562 or 11,959``."""
    told = {int(run.dataset["train_images"]) for run in runs if run.dataset.get("train_images")}
    *others, last = [f"{size:,}" for size in sorted(told)] or [NOT_RUN]
    return f"{', '.join(others)} or {last}" if others else last


def front_rows(sources: Sources) -> list[tuple[Arm, str, Evidence]]:
    """Each arm with its words and the runs it is shown by, in the table's order after the claim."""
    return [(arm, what, _longest(sources, arm)) for arm, what in shown("front")]


def _longest(sources: Sources, arm: Arm) -> Evidence:
    """The runs of ``arm`` in the profile that trains most."""
    for profile in LONGEST_FIRST:
        evidence = sources.evidence
        if profile != evidence.profile:
            evidence = sources.other(profile)
        if any(evidence.runs(arm.name, k) for k in evidence.hospital_counts):
            return evidence
    return sources.evidence


def _claim(sources: Sources, counts: tuple[int, ...]) -> dict[str, str]:
    """The paper's own row: nothing here was run."""
    accuracy = sources.claims.accuracy
    row = {
        "what": f"the paper's claim, {PRIVATE}",
        "epsilon": f"ε = {sources.claims.get('epsilon').value:g}, as stated",
    }
    costs = []
    for hospitals in counts:
        private, plain = accuracy(PRIVATE, hospitals), accuracy(PLAIN, hospitals)
        row[f"k{hospitals}"] = f"{private.value:.2f}" if private else "–"
        costs.append(signed(private.value - plain.value) if private and plain else "–")
    return row | {"cost": " / ".join(costs)}


def _row(evidence: Evidence, arm: Arm, what: str, counts: tuple[int, ...]) -> dict[str, str]:
    row = {"what": what + _setting(evidence, arm)}
    unit = protected_unit(arm.name)
    row["epsilon"] = f"ε = {target_epsilon(arm.name):g}, {unit}" if unit else "ε = ∞"
    for hospitals in counts:
        row[f"k{hospitals}"] = percent(evidence.final(arm.name, hospitals))
    return row | {"cost": _cost(evidence, arm, counts)}


def _setting(evidence: Evidence, arm: Arm) -> str:
    """In which setting the paper's network was trained; other models have their own."""
    if arm.model != "dpresnet" or not evidence.records:
        return ""
    if evidence.profile == PAPER:
        return " (paper's setting)"
    return f" ({departures(PROFILES[evidence.profile])[0]})"


def _cost(evidence: Evidence, arm: Arm, counts: tuple[int, ...]) -> str:
    """Points against the same training without privacy, seeds paired: ``−0.4 / −0.8``."""
    twin = arm.presentation.twin
    if twin is None or arm.reading in READINGS:
        return "–"
    pairs = [compare(evidence, arm.name, twin, hospitals) for hospitals in counts]
    if not any(pairs):
        return NOT_RUN
    return " / ".join(NOT_RUN if pair is None else signed(pair.summary.mean) for pair in pairs)
