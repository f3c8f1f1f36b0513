"""The answer in plain words, from the runs and the claims: no number here is typed.

Three parts, as the first screen of the report shows them: what the paper claims, what was
found, and how sure we are.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from repro.ablations.training_length import LONG
from repro.accounting import PoissonSampledGaussianEvent, RDPAccountant
from repro.formatting import small
from repro.report.answer_table import (
    CLIPPED,
    DOCUMENTED,
    FEDAVG,
    HOSPITAL,
    PLAIN,
    PRIVATE,
    RECORD,
    ROWS,
    SCATTERING,
    SCATTERING_PLAIN,
    SCATTERING_POOLED,
    answer_table,
)
from repro.report.evidence import Evidence
from repro.report.privacy import epsilon
from repro.report.sources import Sources
from repro.report.statistics import Summary, percent
from repro.report.table import NOT_RUN, Table
from repro.report.verdicts import (
    NOT_CHECKABLE,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    Verdict,
    departures,
    documented_epsilon,
    undecidable,
)
from repro.runs.arms import ARMS
from repro.runs.guarantees import promise
from repro.runs.profiles import PROFILES, SCATTERING_SEARCH
from repro.runs.settings import UpdatePrivacy

LONG_PRIVATE = "dpsgd-eps6"  # of the ablation training-length, which has no RECORD


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
        found=(
            _privacy(sources),
            _secagg(sources),
            _costs(sources),
            _honest(sources),
            *_as_long(sources),
        ),
        table=answer_table(sources),
        sure=_sure(sources, verdicts),
        tags="; ".join(f"[{tag}] {what}" for tag, what in sources.claims.sources.items()),
    )


def _claims(sources: Sources) -> str:
    counts, levels, losses = [], [], []
    for private in sources.claims.of_kind("accuracy"):
        plain = sources.claims.accuracy(PLAIN, private.hospitals or 0)
        if private.configuration == PRIVATE and plain:
            counts.append(str(private.hospitals))
            levels.append(f"{private.value:.2f}")
            losses.append(f"{plain.value - private.value:.2f}")
    budget = sources.claims.get("epsilon")
    return (
        "Privacy costs almost nothing. Hospitals that train one classifier of blood cells "
        f"together, with differential privacy (ε = {budget.value:g} [{budget.source}]) and secure "
        f"aggregation, reach a test accuracy of {_each(levels)} % with {_each(counts)} hospitals, "
        f"{_each(losses)} points less than without either [2nd]."
    )


def _documented(sources: Sources) -> float:
    """Total ε of the documented noise for one hospital's update, add/remove, by its claim."""
    claim, clip_norm = sources.claims.get("epsilon"), UpdatePrivacy().clip_norm
    alone = (r for r in claim.readings if "hospitals" not in r and r["sensitivity"] == clip_norm)
    return documented_epsilon(claim, next(alone))


def _privacy(sources: Sources) -> Finding:
    claim, documented = sources.claims.get("epsilon"), _documented(sources)
    return Finding(
        f"ε = {claim.value:g} does not hold, with or without the noise.",
        "Very likely the noise was never added, and nothing is guaranteed: "
        f"ε = {epsilon(math.inf)} [flwr, infer]. Added as documented, it gives a hospital "
        f"ε = {epsilon(documented)} over the paper's {claim['rounds']} rounds [calc]. (But for a "
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
        "What secure aggregation alone changes:",
        f"accuracy by {_each(ours)} points in these runs, with {_counts(evidence)} hospitals and "
        "the same seeds with and without it, where its rounding is all that differs; in the "
        f"paper's table by {_each(theirs)} [calc].",
    )


def _costs(sources: Sources) -> Finding:
    """What each reading changes against plain FedAvg, in points."""
    evidence = sources.evidence
    parts = []
    for what, arm in (
        (f"clipping without noise{_never_clipped(evidence)}", CLIPPED),
        ("the documented noise", DOCUMENTED),
        (f"an honest {promise(RECORD)}", RECORD),
        (f"an honest {promise(HOSPITAL)}", HOSPITAL),
    ):
        parts.append(f"{what} {_gains(evidence, arm)}")
    return Finding(
        "What privacy costs the paper's network:",
        "points of accuracy in these runs against plain FedAvg of the same seeds, all with secure "
        f"aggregation and {_counts(evidence)} hospitals, each trained as long as the table says: "
        f"{'; '.join(parts)}.",
    )


def _never_clipped(evidence: Evidence) -> str:
    """Why clipping may change nothing at all, where that is so."""
    runs = [run for k in evidence.hospital_counts for run in evidence.runs(CLIPPED, k)]
    if not runs or any(run.diagnostics.get("updates_clipped", 1) for run in runs):
        return ""
    return " (no update was long enough to be clipped)"


def _honest(sources: Sources) -> Finding:
    """What an honest guarantee reaches with a model that suits it."""
    evidence = sources.evidence

    def each(arm: str) -> str:
        finals = [evidence.final(arm, hospitals) for hospitals in evidence.hospital_counts]
        return _each([percent(final) for final in finals]) + ("" if None in finals else " %")

    pooled = evidence.final(SCATTERING_POOLED, evidence.hospital_counts[0])
    return Finding(
        "What honest privacy reaches with another model:",
        "fixed wavelet scattering with one linear layer, which suits few images, has at "
        f"{promise(SCATTERING)}, with secure aggregation and {_counts(evidence)} hospitals, "
        f"{each(SCATTERING)}, that is {_gains(evidence, SCATTERING, SCATTERING_PLAIN)} points "
        "against itself without privacy; with all images in one trusted place, "
        f"{promise(SCATTERING_POOLED)} and δ = {small(ARMS[SCATTERING_POOLED].delta)}, "
        f"{percent(pooled)}{' %' if pooled else ''}. "
        f"About {SCATTERING_SEARCH} runs, judged on the hospitals' validation images, chose its "
        f"settings; no ε here covers that search{_charged(evidence)}.",
    )


def _charged(evidence: Evidence) -> str:
    """What so many runs of the arm cost together: their steps composed, at the worst hospital."""
    totals = []
    for run in evidence.runs(SCATTERING, evidence.hospital_counts[0]):
        for row in run.privacy:
            if (row["unit"], row["relation"]) == ("record", "add_remove") and "steps" in row:
                accountant = RDPAccountant("add_remove")
                step = PoissonSampledGaussianEvent(row["noise_multiplier"], row["sample_rate"])
                accountant.compose(step, SCATTERING_SEARCH * row["steps"])
                totals.append(accountant.epsilon(row["delta"])[0])
    return f", which would cost ε = {max(totals):.0f} if it were charged" if totals else ""


def _as_long(sources: Sources) -> tuple[Finding, ...]:
    """The paper's network with as much training as the other model; none if it was not run."""
    found = sources.side("ablations/training-length")
    rows = found["data"]["variants"] if found else []
    own = {run_id for row in rows if row["variant"] != LONG for run_id in row["runs"]}
    shown = {
        row["series"]: percent(Summary(row["mean"], row["deviation"], len(row["seeds"])))
        for row in rows
        if row["variant"] == LONG
    }
    # Its shorter runs are the matrix' own; others' come of another profile or other images.
    ours = {record.run_id for record in sources.evidence.records}
    if not own or not own <= ours or not {FEDAVG, LONG_PRIVATE} <= set(shown):
        return ()
    finding = Finding(
        "Trained longer, the paper's network",
        f"has {shown[FEDAVG]} % without privacy and {shown[LONG_PRIVATE]} % at "
        f"{promise(LONG_PRIVATE)}, after {LONG} as the other model has them, with "
        f"{rows[0]['hospitals']} hospitals (ablation training-length).",
    )
    return (finding,)


def _counts(evidence: Evidence) -> str:
    return " / ".join(map(str, evidence.hospital_counts))


def _each(parts: list[str]) -> str:
    """One value for each number of hospitals; ``not run`` once where that is all there is."""
    return parts[0] if set(parts) == {NOT_RUN} else " / ".join(parts)


def gain(evidence: Evidence, arm: str, hospitals: int, plain_arm: str = FEDAVG) -> Summary | None:
    """Points of accuracy over ``plain_arm``, paired by seed so that what seeds share drops out."""
    plain = {r.seed: r.final_accuracy for r in evidence.runs(plain_arm, hospitals)}
    other = {r.seed: r.final_accuracy for r in evidence.runs(arm, hospitals)}
    return Summary.of([100 * (other[seed] - plain[seed]) for seed in plain if seed in other])


def _gains(evidence: Evidence, arm: str, plain_arm: str = FEDAVG) -> str:
    counts = evidence.hospital_counts
    return _each([_points(gain(evidence, arm, hospitals, plain_arm)) for hospitals in counts])


def _points(summary: Summary | None) -> str:
    if summary is None:
        return NOT_RUN
    deviation = "" if summary.deviation is None else f" ± {summary.deviation:.1f}"
    return f"{summary.mean:+.1f}{deviation}".replace("-", "−")


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
        Finding("Certain:", "the ε of each reading of “DP+”. It follows from the setting by exact "
                "arithmetic; no run is needed [calc]."),
        Finding("Very likely:", "that the noise was never added. The Flower releases which the "
                "authors' repository can install compute it and throw it away when executed "
                "[flwr]; what the authors had installed is not known [infer]."),
        _sure_of_accuracy(sources.evidence),
        Finding("Not known:", "the paper's text, its seeds and deviations. Its numbers come from "
                "one third-party summary [2nd], its settings from the authors' code [code]."),
        Finding("In numbers:", f"every claim of the paper, judged under each reading: {tally}."),
    )  # fmt: skip


def _sure_of_accuracy(evidence: Evidence) -> Finding:
    """Do these runs decide the claims on accuracy? If not, what can be taken from them?"""
    done, wanted = coverage(evidence)
    finished = f"{done} of {wanted} runs are finished"
    if not evidence.records:
        return Finding("Open: the paper's accuracy.", f"No run is finished yet ({finished}).")
    finals = [evidence.final(arm, k) for _, arm in ROWS for k in evidence.hospital_counts]
    widest = max((final.deviation or 0.0 for final in finals if final), default=0.0)
    spread = f"Standard deviations over seeds reach {100 * widest:.1f} points; {finished}."
    why_not = undecidable(evidence)
    if why_not is None:
        lead, text = (
            "Measured: the paper's accuracy.",
            "Real images in the paper's setting decide the claims.",
        )
        return Finding(lead, f"{text} {spread}")
    smaller = departures(PROFILES[evidence.profile])
    setting = f" Against the paper's setting: {', '.join(smaller)}." if smaller else ""
    return Finding(
        "Open: the paper's accuracy.",
        f"These runs decide no claim on it, since {why_not}.{setting} {spread}",
    )
