"""What the paper's own setting gave: its claims on accuracy beside the runs that judge them."""

from __future__ import annotations

from dataclasses import dataclass

from repro.report.evidence import Evidence
from repro.report.sources import Sources
from repro.report.statistics import percent
from repro.report.table import NOT_RUN, Column, Table
from repro.report.verdicts import Verdict
from repro.runs.arms import ARMS
from repro.runs.record import RunRecord
from repro.runs.settings import UpdatePrivacy

# The reading of a claim that is judged on the first screen: what was most likely run.
READINGS = ("as run", "as most likely run")


@dataclass(frozen=True)
class Setting:
    """The paper's setting as far as it was run."""

    table: Table
    summary: str  # the claims that runs judge, at the fewest hospitals, for the three lines


def paper_setting(sources: Sources, verdicts: list[Verdict]) -> Setting | None:
    """None where no run has the paper's setting."""
    evidence = sources.paper
    judged = [v for v in verdicts if v.reading in READINGS and v.hospitals is not None]
    if not evidence.records:
        return None
    rows, said = [], []
    shown = min(run.hospitals for run in evidence.records)
    for verdict in judged:
        claim = sources.claims.get(verdict.claim)
        if claim.kind != "accuracy":
            continue
        arm = next(r["arm"] for r in claim.readings if r["name"] == verdict.reading)
        runs = evidence.runs(arm, verdict.hospitals or 0)
        rows.append(
            {
                "what": f"{verdict.configuration}, {verdict.reading}",
                "hospitals": str(verdict.hospitals),
                "claimed": verdict.claimed.removesuffix(f" [{claim.source}]"),
                "measured": _levels(evidence, arm, verdict.hospitals or 0),
                "clipped": _clipped(runs),
                "verdict": verdict.verdict if runs else NOT_RUN,
            }
        )
        if runs and verdict.hospitals == shown:  # the table has the others
            trained = ARMS[arm].presentation.names.get("sentence", verdict.configuration)
            said.append(
                f"{trained} reaches {_levels(evidence, arm, shown)} % "
                f"(the paper: {claim.value:.2f} %): {verdict.verdict}"
            )
    table = Table(
        name="paper-setting",
        title="In the paper's own setting",
        columns=[
            Column("what", "configuration"),
            Column("hospitals", "hospitals", number=True),
            Column("claimed", "the paper [2nd]", number=True),
            Column("measured", "measured (%)", number=True),
            Column("clipped", "updates clipped", number=True),
            Column("verdict", "verdict"),
        ],
        rows=rows,
        caption="Test accuracy of the last round. A single run judges a claim by "
        f"±{sources.claims.one_run:g} points, set before the first run ended (claims.toml): the "
        f"test images and the seed explain as much.{_bound_reached(evidence.records)} "
        f"{_precisions(evidence.records)}{_precision_matters(sources)}"
        f"{evidence.caption()}",
    )
    few = ", one run each" if len({run.seed for run in evidence.records}) == 1 else ""
    summary = f"with {shown} hospitals{few}, {'; '.join(said)}." if said else ""
    return Setting(table, summary)


def _levels(evidence: Evidence, arm: str, hospitals: int) -> str:
    return percent(evidence.final(arm, hospitals))


def _clipped(runs: list[RunRecord]) -> str:
    """How many updates were longer than the paper's bound; and how long the longest was."""
    if not runs:
        return "–"
    longest = max(
        (entry["longest_update"] for run in runs for entry in run.history[1:]
         if "longest_update" in entry), default=None,
    )  # fmt: skip
    updates = sum(run.diagnostics.get("updates", 0) for run in runs)
    clipped = sum(run.diagnostics.get("updates_clipped", 0) for run in runs)
    length = "" if longest is None else f"longest {longest:.1f}"
    if not any(run.settings.get("update_privacy") for run in runs):
        return length or "–"
    return f"{clipped} of {updates}" + (f", {length}" if length else "")


def _bound_reached(records: tuple[RunRecord, ...]) -> str:
    """In how many rounds of unclipped runs an update was longer than the paper's bound."""
    bound = UpdatePrivacy().clip_norm
    lengths = [
        entry["longest_update"]
        for run in records
        for entry in run.history[1:]
        if "longest_update" in entry and not run.settings.get("update_privacy")
    ]
    if not lengths:
        return ""
    longer = sum(length > bound for length in lengths)
    return (
        f" Without clipping the longest update was over the paper's bound, {bound:g}, in {longer} "
        f"of {len(lengths)} rounds."
    )


def _precision_matters(sources: Sources) -> str:
    """What the other precision changes, where that was measured."""
    conclusion = ((sources.side("ablations/precision") or {}).get("data") or {}).get("conclusion")
    bounds = (conclusion or {}).get("interval")
    if not bounds:
        return ""
    low, high = (f"{value:+.1f}".replace("-", "−") for value in bounds)
    return f"bf16-mixed over float32, a narrower network: {low} to {high} points (95 %, ablation). "


def _precisions(records: tuple[RunRecord, ...]) -> str:
    """Which arithmetic the runs used, and on what they ran."""
    used = sorted({str(run.settings.get("precision", "float32")) for run in records})
    where = sorted({str(run.environment.get("cpu") or "CPU") if run.environment.get("device")
                    != "cuda" else str(run.environment.get("cuda_device"))
                    for run in records})  # fmt: skip
    return f"Trained in {' and '.join(used)} on {', '.join(where)}. "
