"""The answer in plain words, from the runs and the claims: no number here is typed.

Three parts, as the first screen of the report shows them: what the paper claims, what was
found, and how sure we are.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from repro.arms import ARMS
from repro.profiles import PROFILES
from repro.results.drawing import Sources
from repro.results.evidence import Evidence
from repro.results.privacy import epsilon, promise, protected_unit, total_epsilon
from repro.results.statistics import Summary, percent
from repro.results.table import NOT_RUN, Column, Table
from repro.results.verdicts import (
    NOT_CHECKABLE,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    Verdict,
    departures,
    documented_epsilon,
    undecidable,
)
from repro.settings import UpdatePrivacy

PRIVATE = "DP+ / SecAgg+"
PLAIN = "DP− / SecAgg−"
CLIPPED, DOCUMENTED = "clip-secagg", "documented-secagg"
RECORD, HOSPITAL = "dpsgd-eps6-secagg", "calibrated-secagg"
SCATTERING = "scattering-dpsgd-eps6-secagg"  # the same promise as RECORD by another model
# What the rows of the answer are, and the arm that measures each.
ROWS = (
    ("no privacy: plain FedAvg", "fedavg"),
    ("“DP+” as most likely run: clipping, no noise", CLIPPED),
    ("“DP+” as documented: its noise added", DOCUMENTED),
    ("honest privacy for a record (one image)", RECORD),
    ("honest privacy for a whole hospital", HOSPITAL),
    ("no privacy: FedAvg, scattering for DPResNet", "scattering-fedavg"),
    ("honest privacy for a record, scattering for DPResNet", SCATTERING),
)


@dataclass(frozen=True)
class Finding:
    """One line of the answer: a bold lead and a sentence or two."""

    lead: str
    text: str


@dataclass(frozen=True)
class Answer:
    claims: str
    found: tuple[Finding, ...]
    table: Table
    sure: tuple[Finding, ...]
    tags: str  # what the tags in brackets mean


def answer(sources: Sources, verdicts: list[Verdict]) -> Answer:
    return Answer(
        claims=_claims(sources),
        found=(_privacy(sources), _secagg(sources), _costs(sources), _honest(sources)),
        table=_table(sources),
        sure=_sure(sources, verdicts),
        tags="; ".join(f"[{tag}] {what}" for tag, what in sources.claims.sources.items()),
    )


def _claims(sources: Sources) -> str:
    parts = []
    for private in sources.claims.of_kind("accuracy"):
        plain = sources.claims.accuracy(PLAIN, private.hospitals or 0)
        if private.configuration == PRIVATE and plain:
            parts.append(
                f"{private.value:.2f} % with {private.hospitals} hospitals, "
                f"{plain.value - private.value:.2f} points less than without either"
            )
    budget = sources.claims.get("epsilon")
    return (
        "Privacy costs almost nothing. Hospitals that train one classifier of blood cells "
        f"together, with differential privacy (ε = {budget.value:g} [{budget.source}]) and secure "
        f"aggregation, reach a test accuracy of {'; and of '.join(parts)} [2nd]."
    )


def _documented(sources: Sources) -> float:
    """Total ε of the documented noise for one hospital's update, add/remove, by its claim."""
    claim, clip_norm = sources.claims.get("epsilon"), UpdatePrivacy().clip_norm
    alone = (r for r in claim.readings if "hospitals" not in r and r["sensitivity"] == clip_norm)
    return documented_epsilon(claim, next(alone))


def _privacy(sources: Sources) -> Finding:
    claim, documented = sources.claims.get("epsilon"), _documented(sources)
    return Finding(
        f"The privacy claimed is not there: ε = {claim.value:g} does not hold.",
        "The noise was very likely never added, so nothing is guaranteed: "
        f"ε = {epsilon(math.inf)} [flwr, infer]. Had it been added as documented, a hospital would "
        f"have ε = {epsilon(documented)} after the {claim['rounds']} rounds [calc]. (But for a "
        "small probability δ, ε limits how far seeing the training can shift anybody's odds about "
        f"a hospital: {claim.value:g} by a factor of {math.exp(claim.value):.0f}; "
        f"{epsilon(documented)} limits nothing.)",
    )


def _secagg(sources: Sources) -> Finding:
    """What it changes, ours beside the paper's."""
    evidence = sources.evidence
    ours, theirs = [], []
    for hospitals in evidence.hospital_counts:
        ours.append(_points(gain(evidence, "fedavg-secagg", hospitals)))
        claimed = (c for c in sources.claims.of_kind("difference") if c.hospitals == hospitals)
        claim = next(claimed, None)
        theirs.append(f"{claim.value:+.2f}".replace("-", "−") if claim else "not given")
    return Finding(
        "Secure aggregation alone changes accuracy",
        f"by {_each(ours)} points in these runs, with {_counts(evidence)} hospitals and the same "
        f"seeds with and without it, where its rounding is all that differs; in the paper's table "
        f"by {_each(theirs)} [calc].",
    )


def _costs(sources: Sources) -> Finding:
    """What each reading changes against plain FedAvg, in points."""
    evidence = sources.evidence
    parts = []
    for what, arm in (
        ("clipping without noise", CLIPPED),
        ("the documented noise", DOCUMENTED),
        (f"an honest {promise(RECORD)}", RECORD),
        (f"an honest {promise(HOSPITAL)}", HOSPITAL),
    ):
        shown = [_points(gain(evidence, arm, hospitals)) for hospitals in evidence.hospital_counts]
        parts.append(f"{what} {_each(shown)}")
    return Finding(
        "What privacy costs:",
        "points of accuracy in these runs against plain FedAvg of the same seeds, with "
        f"{_counts(evidence)} hospitals: {'; '.join(parts)}.",
    )


def _honest(sources: Sources) -> Finding:
    """What an honest guarantee can reach with a model that suits it."""
    evidence = sources.evidence

    def each(arm: str) -> str:
        finals = [evidence.final(arm, hospitals) for hospitals in evidence.hospital_counts]
        return _each([percent(final) if final else NOT_RUN for final in finals])

    pooled = evidence.final("scattering-central-dpsgd-eps6", evidence.hospital_counts[0])
    return Finding(
        "What honest privacy can reach:",
        f"at {promise(SCATTERING)} and with secure aggregation, a model made for small data, fixed "
        f"wavelet scattering with one linear layer, has a test accuracy of {each(SCATTERING)} % "
        f"with {_counts(evidence)} hospitals; without privacy {each('scattering-fedavg')} %; with "
        f"the same ε but all images in one trusted place "
        f"{percent(pooled) if pooled else NOT_RUN} %.",
    )


def _counts(evidence: Evidence) -> str:
    return " / ".join(map(str, evidence.hospital_counts))


def _each(parts: list[str]) -> str:
    """One value for each number of hospitals; ``not run`` once where that is all there is."""
    return parts[0] if set(parts) == {NOT_RUN} else " / ".join(parts)


def gain(evidence: Evidence, arm: str, hospitals: int) -> Summary | None:
    """Points of accuracy over plain FedAvg, paired by seed so that what seeds share drops out."""
    plain = {r.seed: r.final_accuracy for r in evidence.runs("fedavg", hospitals)}
    other = {r.seed: r.final_accuracy for r in evidence.runs(arm, hospitals)}
    return Summary.of([100 * (other[seed] - plain[seed]) for seed in plain if seed in other])


def _points(summary: Summary | None) -> str:
    if summary is None:
        return NOT_RUN
    deviation = "" if summary.deviation is None else f" ± {summary.deviation:.1f}"
    return f"{summary.mean:+.1f}{deviation}".replace("-", "−")


def _table(sources: Sources) -> Table:
    """The answer's few numbers: true ε and accuracy of each reading."""
    evidence = sources.evidence
    counts = evidence.hospital_counts
    stated = sources.claims.get("epsilon").value
    rows = [{"what": "the paper’s claim", "epsilon": f"{stated:g} (as stated)"}]
    for hospitals in counts:
        claim = sources.claims.accuracy(PRIVATE, hospitals)
        rows[0][f"k{hospitals}"] = f"{claim.value:.2f} [{claim.source}]" if claim else "–"
    for what, arm in ROWS:
        row = {"what": what, "epsilon": _true_epsilon(evidence, arm)}
        for hospitals in counts:
            final = evidence.final(arm, hospitals)
            row[f"k{hospitals}"] = NOT_RUN if final is None else percent(final)
        rows.append(row)
    return Table(
        name="answer",
        title="Test accuracy (%) and true ε",
        columns=[
            Column("what", "reading"),
            Column("epsilon", "ε", number=True),
            *(Column(f"k{k}", f"accuracy (%), {k} hospitals", number=True) for k in counts),
        ],
        rows=rows,
        caption="Accuracy: mean ± standard deviation over seeds, last round. ε: total, from the "
        f"runs' own ledgers, for the unit in brackets.{_beware(evidence)} {evidence.caption()}",
    )


def _beware(evidence: Evidence) -> str:
    """What must not be read out of the table, where these runs decide nothing."""
    why_not = undecidable(evidence) if evidence.records else None
    if why_not is None:
        return ""
    return f" Compare our rows with each other, not with the paper: {why_not}."


def _true_epsilon(evidence: Evidence, arm: str) -> str:
    """The largest total ε in the ledgers of the arm's runs, and what it protects."""
    unit = protected_unit(arm)
    if unit is None:
        return epsilon(math.inf)
    runs = [run for hospitals in evidence.hospital_counts for run in evidence.runs(arm, hospitals)]
    if not runs:
        return NOT_RUN
    return f"{epsilon(max(total_epsilon(run, unit) for run in runs))} ({unit})"


def coverage(evidence: Evidence) -> tuple[int, int]:
    """(finished runs of the matrix, runs it has)."""
    profile = PROFILES[evidence.profile]
    cells = [
        [run.seed for run in evidence.runs(arm.name, hospitals)]
        for arm in ARMS.values()
        for hospitals in profile.hospitals
        if arm.scope != "pooled" or hospitals == profile.hospitals[0]  # once is enough
    ]
    done = sum(len(set(seeds) & set(profile.seeds)) for seeds in cells)
    return done, len(cells) * len(profile.seeds)


def _sure(sources: Sources, verdicts: list[Verdict]) -> tuple[Finding, ...]:
    counts = Counter(v.verdict for v in verdicts)
    order = (REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE, NOT_CHECKABLE)
    tally = ", ".join(f"{counts[name]} {name}" for name in order)
    return (
        Finding("Certain:", "the ε of each reading. It follows from the setting by exact "
                "arithmetic; no run is needed [calc]."),
        Finding("Very likely:", "that the noise was never added. The Flower releases which the "
                "authors' repository can install compute it and throw it away when executed "
                "[flwr]; what the authors had installed is not known [infer]."),
        _sure_of_accuracy(sources.evidence),
        Finding("Not known:", "the paper's text, its seeds and deviations. Its numbers come from "
                "one third-party summary [2nd], its settings from the authors' code [code]."),
        Finding("In numbers:", f"of the paper's claims, read in every way, {tally}."),
    )  # fmt: skip


def _sure_of_accuracy(evidence: Evidence) -> Finding:
    """Do these runs decide the claims on accuracy? If not, what can be taken from them?"""
    done, wanted = coverage(evidence)
    finished = f"{done} of {wanted} runs are finished"
    if not evidence.records:
        return Finding("Open: accuracy.", f"No run is finished yet ({finished}).")
    finals = [evidence.final(arm, k) for _, arm in ROWS for k in evidence.hospital_counts]
    widest = max((final.deviation or 0.0 for final in finals if final), default=0.0)
    spread = f"Seeds spread by up to ± {100 * widest:.1f} points; {finished}."
    why_not = undecidable(evidence)
    if why_not is None:
        lead, text = "Measured: accuracy.", "Real images in the paper's setting decide the claims."
        return Finding(lead, f"{text} {spread}")
    smaller = departures(PROFILES[evidence.profile])
    setting = f" Against the paper's setting: {', '.join(smaller)}." if smaller else ""
    return Finding(
        "Open: accuracy.",
        f"These runs decide no claim on it, since {why_not}.{setting} {spread}",
    )
