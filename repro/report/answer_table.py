"""The few numbers of the first screen: true ε, length of training and accuracy, row by row."""

from __future__ import annotations

import math

from repro.formatting import small
from repro.report.evidence import Evidence
from repro.report.privacy import epsilon
from repro.report.sources import Sources
from repro.report.statistics import percent
from repro.report.table import NOT_RUN, Column, Table
from repro.report.verdicts import undecidable
from repro.runs.guarantees import protected_unit, total_epsilon
from repro.runs.settings import RecordPrivacy

PRIVATE = "DP+ / SecAgg+"
PLAIN = "DP− / SecAgg−"
FEDAVG, CLIPPED, DOCUMENTED = "fedavg", "clip-secagg", "documented-secagg"
RECORD, HOSPITAL = "dpsgd-eps6-secagg", "calibrated-secagg"
SCATTERING = "scattering-dpsgd-eps6-secagg"  # the same promise as RECORD by another model
SCATTERING_PLAIN, SCATTERING_POOLED = "scattering-fedavg", "scattering-central-dpsgd-eps6"
# What the rows of the answer are, and the arm that measures each.
ROWS = (
    ("no privacy: plain FedAvg", FEDAVG),
    ("“DP+” as most likely run: clipping, no noise", CLIPPED),
    ("“DP+” as documented: its noise added", DOCUMENTED),
    ("honest privacy for a record (one image)", RECORD),
    ("honest privacy for a whole hospital", HOSPITAL),
    ("another model (scattering): no privacy", SCATTERING_PLAIN),
    ("another model (scattering): honest privacy for a record", SCATTERING),
)


def answer_table(sources: Sources) -> Table:
    """The answer's few numbers: true ε and accuracy of each reading."""
    evidence = sources.evidence
    counts = evidence.hospital_counts
    stated = sources.claims.get("epsilon").value
    rows = [{"what": "the paper’s claim", "epsilon": f"{stated:g} (as stated)", "epochs": "–"}]
    for hospitals in counts:
        claim = sources.claims.accuracy(PRIVATE, hospitals)
        rows[0][f"k{hospitals}"] = f"{claim.value:.2f} [{claim.source}]" if claim else "–"
    for what, arm in ROWS:
        row = {"what": what, "epsilon": _true_epsilon(evidence, arm)}
        row["epochs"] = _epochs(evidence, arm)
        for hospitals in counts:
            final = evidence.final(arm, hospitals)
            row[f"k{hospitals}"] = NOT_RUN if final is None else percent(final)
        rows.append(row)
    return Table(
        name="answer",
        title="Test accuracy (%) and true ε",
        columns=[
            Column("what", "training"),
            Column("epsilon", "ε", number=True),
            Column("epochs", "local epochs", number=True),
            *(Column(f"k{k}", f"accuracy (%), {k} hospitals", number=True) for k in counts),
        ],
        rows=rows,
        caption="Accuracy: mean ± standard deviation over seeds, last round"
        f"{_guessing(evidence)}. ε: total over our own rounds, at "
        f"δ = {small(RecordPrivacy.delta)}, from the runs' ledgers, for the unit in brackets. "
        f"Local epochs: passes over the training images in all rounds.{_beware(evidence)}"
        f"{_public_seeds(evidence)} {evidence.caption()}",
    )


def _guessing(evidence: Evidence) -> str:
    """The accuracy of a model that knows nothing but which class is the commonest."""
    if not evidence.records:
        return ""
    every = ([sum(row) for row in record.confusion] for record in evidence.records)
    images = max(every, key=sum)  # of each class; some runs are judged on a part of the test images
    return f"; always guessing the commonest class has {100 * max(images) / sum(images):.1f} %"


def _beware(evidence: Evidence) -> str:
    """What must not be read out of the table, where these runs decide nothing."""
    why_not = undecidable(evidence) if evidence.records else None
    if why_not is None:
        return ""
    return (
        " Compare our rows of like length and model with each other, none with the paper: "
        f"{why_not}."
    )


def _public_seeds(evidence: Evidence) -> str:
    if not any(run.seed_source == "user seed" for run in evidence.records):
        return ""
    return (
        " These runs' seeds are public, which makes them repeatable and their own models not "
        "private; ε holds for the same command without a seed."
    )


def _epochs(evidence: Evidence, arm: str) -> str:
    runs = [run for k in evidence.hospital_counts for run in evidence.runs(arm, k)]
    return f"{runs[0].settings['local']['epochs'] * runs[0].rounds:g}" if runs else NOT_RUN


def _true_epsilon(evidence: Evidence, arm: str) -> str:
    """The largest total ε in the ledgers of the arm's runs, and what it protects."""
    unit = protected_unit(arm)
    if unit is None:
        return epsilon(math.inf)
    runs = [run for hospitals in evidence.hospital_counts for run in evidence.runs(arm, hospitals)]
    if not runs:
        return NOT_RUN
    return f"{epsilon(max(total_epsilon(run, unit) for run in runs))} ({unit})"
