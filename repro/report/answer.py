"""The answer in plain words, from the runs and the claims: no number here is typed.

What the first screen shows: how far these runs reach, three lines to repeat, what was found
(only between runs of equal training length, with the seeds), and how sure we are.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from repro.report.answer_table import answer_table, counts_in_words
from repro.report.comparison import NOT_RESOLVED, compare, compared, local_epochs
from repro.report.evidence import Evidence
from repro.report.honest import Finding, best_honest, honest_findings
from repro.report.items.table9_clinical import clinical_finding
from repro.report.paper_setting import paper_setting
from repro.report.privacy import epsilon
from repro.report.shown import shown
from repro.report.sources import Sources
from repro.report.statistics import percent
from repro.report.table import NOT_RUN, Table
from repro.report.verdicts import (
    NOT_CHECKABLE,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    Verdict,
    departures,
    epsilon_of_a_hospital,
    undecidable,
)
from repro.runs.arm import PLAIN, PRIVATE
from repro.runs.arms import ARMS, CLIPPED, DOCUMENTED, FEDAVG, FEDAVG_SECURE, HOSPITAL, RECORD
from repro.runs.guarantees import promise
from repro.runs.profiles import PROFILES
from repro.runs.settings import UpdatePrivacy


@dataclass(frozen=True)
class Answer:
    scope: str  # how far these runs reach: the first line
    claims: str
    short: tuple[str, ...]  # three lines to repeat
    paper: Table | None  # the claims judged in the paper's own setting, where it was run
    found: tuple[Finding, ...]
    table: Table
    sure: tuple[Finding, ...]
    tags: str  # what the tags in brackets mean


def answer(sources: Sources, verdicts: list[Verdict]) -> Answer:
    setting = paper_setting(sources, verdicts)
    return Answer(
        scope=_scope(sources),
        claims=_claims(sources),
        short=_short(sources, setting.summary if setting else ""),
        paper=setting.table if setting else None,
        found=(
            _privacy(sources),
            _secagg(sources),
            _costs(sources.evidence),
            *honest_findings(sources),
            *clinical_finding(sources),
        ),
        table=answer_table(sources),
        sure=_sure(sources, verdicts),
        tags="; ".join(f"[{tag}] {what}" for tag, what in sources.claims.sources.items()),
    )


def _scope(sources: Sources) -> str:
    """The first line: which profile on which images, and what that can decide."""
    evidence, paper = sources.evidence, sources.paper
    if paper.records and paper is not evidence and undecidable(paper) is None:
        runs = "1 run decides" if len(paper.records) == 1 else f"{len(paper.records)} runs decide"
        return (
            f"In the paper's own setting {runs} what “In the paper's setting” below says. "
            f"All other rows are the {evidence.profile} profile "
            f"({', '.join(departures(PROFILES[evidence.profile]))}), which decides no claim."
        )
    why_not = undecidable(evidence) if evidence.records else "nothing was run"
    name = evidence.profile.capitalize()
    if why_not is None:
        return f"{name} profile, on real images: these runs decide the claims on accuracy."
    smaller = departures(PROFILES[evidence.profile])
    setting = f", not the paper's setting ({', '.join(smaller)})" if smaller else ""
    because = "" if smaller and evidence.profile in why_not else f" ({why_not})"
    return f"{name} profile{setting}: no claim on the paper's accuracy is decided here{because}."


def _short(sources: Sources, judged: str) -> tuple[str, ...]:
    """Three lines that somebody who treats patients can repeat.

    judged: what runs in the paper's own setting say of its accuracy; "" where there is none.
    """
    evidence, claim = sources.evidence, sources.claims.get("epsilon")
    parts = [compare(evidence, FEDAVG_SECURE, FEDAVG, k) for k in evidence.hospital_counts]
    measured = [part for part in parts if part is not None]
    if not measured:
        secagg = f"What it changes in accuracy: {NOT_RUN}."
    elif any(part.resolved for part in measured):
        points = compared(evidence, FEDAVG_SECURE, FEDAVG)
        secagg = f"It changes accuracy by {points} points, {counts_in_words(evidence)}."
    else:
        secagg = "These runs cannot tell its accuracy from that without it."
    return (
        f"The privacy the paper states, ε = {claim.value:g}, was very likely not there: no noise "
        "was added, so nothing limits what the model gives away about a patient [flwr, infer].",
        f"In the paper's own setting {judged}"
        if judged
        else f"Secure aggregation hides each hospital's contribution from the server. {secagg}",
        best_honest(evidence),
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


def _privacy(sources: Sources) -> Finding:
    claim = sources.claims.get("epsilon")
    documented = epsilon_of_a_hospital(claim, UpdatePrivacy().clip_norm)
    return Finding(
        f"ε = {claim.value:g} does not hold, with or without the noise.",
        f"Without noise, as most likely run, ε = {epsilon(math.inf)} [flwr, infer]. With the noise "
        f"as documented, a hospital's ε is {epsilon(documented)} over the paper's "
        f"{claim['rounds']} rounds [calc]. (But for a small probability δ, ε limits how far seeing "
        f"the training can shift anybody's odds about a hospital: {claim.value:g} by a factor of "
        f"{math.exp(claim.value):.0f}; {epsilon(documented)} limits nothing.)",
    )


def _secagg(sources: Sources) -> Finding:
    """What it changes, ours beside the paper's."""
    evidence = sources.evidence
    theirs = []
    for hospitals in evidence.hospital_counts:
        claimed = (c for c in sources.claims.of_kind("difference") if c.hospitals == hospitals)
        claim = next(claimed, None)
        theirs.append(f"{claim.value:+.2f}".replace("-", "−") if claim else "not given")
    return Finding(
        "Secure aggregation alone",
        f"changes accuracy by {compared(evidence, FEDAVG_SECURE, FEDAVG)} points, "
        f"{counts_in_words(evidence)} (its rounding is all that differs); in the paper's table by "
        f"{_each(theirs)} [calc].",
    )


def _costs(evidence: Evidence) -> Finding:
    """What each reading changes against FedAvg with secure aggregation, in points."""
    readings = {
        f"clipping without noise{_never_clipped(evidence)}": CLIPPED,
        "the documented noise": DOCUMENTED,
        f"an honest {promise(RECORD)}": RECORD,
        f"an honest {promise(HOSPITAL)}": HOSPITAL,
    }
    parts = [f"{what} {compared(evidence, arm, FEDAVG_SECURE)}" for what, arm in readings.items()]
    return Finding(
        "What privacy costs the paper's network, at equal training length"
        f"{_length(evidence, FEDAVG_SECURE)}:",
        "points of accuracy against FedAvg of the same seeds, all with secure aggregation, "
        f"{counts_in_words(evidence)}: {'; '.join(parts)}. In brackets each seed; "
        f"“{NOT_RESOLVED}”: the seeds' 95 % interval holds zero.",
    )


def _length(evidence: Evidence, arm: str) -> str:
    runs = evidence.all_runs(arm)
    return f" ({local_epochs(runs[0]):g} local epochs)" if runs else ""


def _never_clipped(evidence: Evidence) -> str:
    """Why clipping may change nothing at all, where that is so."""
    runs = evidence.all_runs(CLIPPED)
    if not runs or any(run.diagnostics.get("updates_clipped", 1) for run in runs):
        return ""
    return " (no update was long enough to be clipped)"


def _each(parts: list[str]) -> str:
    """One value for each number of hospitals; ``not run`` once where that is all there is."""
    return parts[0] if set(parts) == {NOT_RUN} else " / ".join(parts)


def coverage(evidence: Evidence) -> tuple[int, int]:
    """(finished runs of the matrix, runs it has)."""
    profile = PROFILES[evidence.profile]
    cells = [
        [run.seed for run in evidence.runs(arm.name, hospitals)]
        for arm in ARMS.values()
        for hospitals in profile.hospitals
        if arm.scope != "pooled" or hospitals == profile.hospitals[0]  # once is enough
        # Needs an optional package: part of the matrix where somebody had it.
        if arm.package is None or evidence.runs(arm.name, hospitals)
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
                f"[flwr]{_executed(sources)}; what the authors had installed is not known "
                "[infer]."),
        Finding("No public commit runs differential privacy and secure aggregation together.",
                sources.claims.history),
        _sure_of_accuracy(sources),
        Finding("Not known:", "the paper's text, its seeds and deviations. Its numbers come from "
                "one third-party summary [2nd], its settings from the authors' code [code]."),
        Finding("In numbers:", f"every claim of the paper, judged under each reading: {tally}."),
    )  # fmt: skip


def _executed(sources: Sources) -> str:
    """`` (by `repro forensics`, Table 8: …)``, where it is on record what each release adds."""
    record = sources.side("forensics")
    if record is None:
        return ""
    found = [f"of σ = {record['documented']['update']:.3g}"]
    found += [
        f"{one['modifier']['deviation']:.3g} by {one['release']}" for one in record["releases"]
    ]
    return f" (`repro forensics`, Table 8: {', '.join(found)})"


def _sure_of_accuracy(sources: Sources) -> Finding:
    """Do these runs decide the claims on accuracy? If not, what can be taken from them?"""
    evidence = sources.evidence
    done, wanted = coverage(evidence)
    finished = f"{done} of {wanted} runs are finished"
    if not evidence.records:
        return Finding("Open: the paper's accuracy.", f"No run is finished yet ({finished}).")
    arms = [arm.name for arm, _ in shown("answer")]
    finals = [evidence.final(arm, k) for arm in arms for k in evidence.hospital_counts]
    found = [final for final in finals if final is not None and final.deviation is not None]
    spread = f"{finished}."
    if found:
        widest = max(found, key=lambda final: final.deviation or 0.0)
        spread = f"The seeds of one arm spread most at {percent(widest)} %; {finished}."
    why_not = undecidable(evidence)
    paper = sources.paper.records
    if why_not and paper:
        return Finding(
            "One seed, where the paper's own setting was run:" if len({r.seed for r in paper}) == 1
            else "Where the paper's own setting was run:",
            "a run is judged by a tolerance stated before it ended, which covers the test images' "
            "and the seed's chance; it cannot tell apart what lies closer. The split between "
            f"training and test images is ours, not the official one. {spread}",
        )  # fmt: skip
    if why_not is None:
        text = "Real images in the paper's setting decide the claims."
        return Finding("Measured: the paper's accuracy.", f"{text} {spread}")
    text = f"These runs decide no claim on it: {why_not}."
    return Finding("Open: the paper's accuracy.", f"{text} {spread}")
