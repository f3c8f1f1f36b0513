"""Each claim of the paper against what was measured: a verdict, an interval and the reason.

Verdicts: *reproduced*, *not reproduced*, *not comparable* (another task or quantity) and
*not checkable* (the runs at hand cannot decide it; the measured number is given all the same).
An accuracy is decided only by the ``paper`` profile on real images: by the interval over seeds, or
where there is one run by the tolerance for one, both stated in ``claims.toml``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from repro.accounting.gaussian import gaussian_epsilon
from repro.formatting import small
from repro.report.claims import Claim
from repro.report.evidence import CLAIMED, REAL, Evidence
from repro.report.privacy import epsilon
from repro.report.sources import Sources
from repro.report.statistics import Summary, percent, percent_interval
from repro.report.table import NOT_RUN, Column, Table
from repro.runs.profiles import PROFILES, Profile

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
NOT_COMPARABLE, NOT_CHECKABLE = "not comparable", "not checkable"
PAPER = "paper"  # the profile that can decide an accuracy
DEPARTURES = {  # field of a profile → what to say where it is not the paper's
    "width": "width {:g} instead of {:g}",
    "rounds": "{:g} rounds instead of {:g}",
    "local_epochs": "{:g} local epochs a round instead of {:g}",
    "batch_size": "batches of {:g} instead of {:g}",
    "train_stride": "1 in {:g} training images",
    "test_stride": "1 in {:g} test images",
}
MEASURED = ("accuracy", "difference", "sizes")  # on images; other claims need none
# An interval wider than this (in points, to each side) would let almost any claim pass.
WIDEST_INTERVAL = 3.0


@dataclass(frozen=True)
class Verdict:
    """One reading of one claim."""

    claim: str  # id in claims.toml
    configuration: str
    hospitals: int | None
    reading: str
    claimed: str
    measured: str
    interval: str
    verdict: str
    reason: str


class Judged(NamedTuple):
    """What a verdict has of the runs."""

    measured: str
    interval: str
    verdict: str
    reason: str


def judge(sources: Sources) -> list[Verdict]:
    """A verdict for every reading of every claim, in the order of ``claims.toml``."""
    return [
        Verdict(
            claim.id,
            claim.configuration,
            claim.hospitals,
            reading.get("name", ""),
            claimed(claim),
            *_judged(sources, claim, reading),
        )
        for claim in sources.claims.claims
        for reading in claim.readings or ({},)
    ]


def _judged(sources: Sources, claim: Claim, reading: dict[str, Any]) -> Judged:
    judge_one = {
        "accuracy": _accuracy,
        "difference": _difference,
        "epsilon": _epsilon,
        "parameters": _parameters,
        "sizes": _sizes,
    }.get(claim.kind)
    if not claim.comparable or judge_one is None:
        return Judged("–", "", NOT_COMPARABLE, claim.reason)
    if claim.kind in MEASURED and sources.evidence.foreign:
        return Judged("–", "", NOT_COMPARABLE, undecidable(sources.evidence) or "")
    return judge_one(sources, claim, reading)


def verdict_table(sources: Sources, verdicts: list[Verdict] | None = None) -> Table:
    verdicts = judge(sources) if verdicts is None else verdicts
    reasons = list(dict.fromkeys(v.reason for v in verdicts))
    return Table(
        name="verdicts",
        title="Verdicts: the paper's claims, one by one",
        columns=[
            Column("configuration", "claim"),
            Column("hospitals", "hospitals", number=True),
            Column("claimed", "paper", number=True),
            Column("reading", "read as"),
            Column("measured", "measured", number=True),
            Column("interval", "95 % interval", number=True),
            Column("verdict", "verdict"),
            Column("reason", "why", number=True),
        ],
        rows=[
            {
                "configuration": v.configuration,
                "hospitals": "" if v.hospitals is None else str(v.hospitals),
                "claimed": v.claimed,
                "reading": v.reading,
                "measured": (v.measured.splitlines() or [""])[0],  # best rounds are in Table 1
                "interval": v.interval,
                "verdict": v.verdict,
                "reason": str(reasons.index(v.reason) + 1),
            }
            for v in verdicts
        ],
        notes=[f"Why {number}: {reason}." for number, reason in enumerate(reasons, start=1)],
        caption=sources.evidence.caption(),
        data=[v.__dict__ for v in verdicts],
    )


def verdict_lines(verdicts: list[Verdict]) -> list[str]:
    """One line each, for the end of a terminal session."""
    lines = []
    for v in verdicts:
        where = f", {v.hospitals} hospitals" if v.hospitals is not None else ""
        reading = f" ({v.reading})" if v.reading else ""
        measured = " ".join(v.measured.split())
        lines.append(
            f"{v.verdict.upper():<15} {v.configuration}{where}{reading}: "
            f"paper {v.claimed}, measured {measured}; {v.reason}"
        )
    return lines


def claimed(claim: Claim) -> str:
    """The paper's number with its unit and tag."""
    if claim.kind == "sizes":
        text = f"{min(claim.value)} to {max(claim.value)}"
    elif claim.kind == "parameters":
        text = f"{claim.value:,}"
    elif claim.kind == "epsilon":
        text = f"{claim.value:g}"
    elif claim.kind == "difference":
        text = f"{claim.value:+.2f} points".replace("-", "−")
    else:
        text = f"{claim.value:.2f} %"
    return f"{text} [{claim.source}]"


def undecidable(evidence: Evidence) -> str | None:
    """Why these runs cannot decide an accuracy claim; None when they can."""
    if evidence.foreign:
        return f"the claims are about BloodMNIST, these runs about {evidence.foreign}"
    if evidence.kind not in REAL:
        return "the images are not BloodMNIST's" + (
            " but a synthetic stand-in" if evidence.kind == "synthetic" else ""
        )
    if evidence.profile != PAPER:
        return f"the {evidence.profile} profile is not the paper's setting"
    return None


def departures(profile: Profile) -> list[str]:
    """In what a profile's training is not the paper's, in words."""
    paper = PROFILES[PAPER]
    return [
        words.format(getattr(profile, name), getattr(paper, name))
        for name, words in DEPARTURES.items()
        if getattr(profile, name) != getattr(paper, name)
    ]


def _accuracy(sources: Sources, claim: Claim, reading: dict[str, Any]) -> Judged:
    arm, hospitals = reading["arm"], claim.hospitals or 0
    evidence = _deciding(sources, hospitals, arm)
    final, best = evidence.final(arm, hospitals), evidence.best(arm, hospitals)
    if final is None or best is None:
        why = f"the arm {arm} was not run with {hospitals} hospitals"
        return Judged(NOT_RUN, "", NOT_CHECKABLE, why)
    measured = f"{percent(final)} %\n(best round {percent(best)} %)"
    bounds = final.interval()
    shown = percent_interval(bounds)
    why_not = undecidable(evidence)
    if why_not:
        return Judged(measured, shown, NOT_CHECKABLE, why_not)
    if bounds is None:
        tolerance = sources.claims.one_run
        return Judged(measured, f"±{tolerance:g}, one run", *_one_run(claim, final, tolerance))
    return Judged(measured, shown, *_against(claim, final, best))


def _deciding(sources: Sources, hospitals: int, *arms: str) -> Evidence:
    """The runs in the paper's own setting where every arm has one, else those of the report."""
    paper = sources.paper
    return paper if all(paper.runs(arm, hospitals) for arm in arms) else sources.evidence


def _one_run(claim: Claim, final: Summary, tolerance: float) -> tuple[str, str]:
    """One run against a claim: no interval over seeds, so a tolerance that was set beforehand."""
    found = f"one run, {_beside(claim, final)}"
    if abs(100 * final.mean - claim.value) <= tolerance:
        return REPRODUCED, f"{found}: no more than one run may miss it by (±{tolerance:g})"
    return NOT_REPRODUCED, f"{found}: more than test images and seed explain (±{tolerance:g})"


def _against(claim: Claim, final: Summary, best: Summary) -> tuple[str, str]:
    """Does the last or the best round's interval, widened by the tolerance, hold the claim?"""
    for name, summary in (("last round", final), ("best round", best)):
        low, high = summary.interval() or (math.nan, math.nan)
        if 100 * (high - low) / 2 > WIDEST_INTERVAL:
            wide = f"the seeds spread too far: the interval is wider than ±{WIDEST_INTERVAL:g}"
            return NOT_CHECKABLE, wide + " points"
        if 100 * low - claim.tolerance <= claim.value <= 100 * high + claim.tolerance:
            widened = f"widened by the claim's ±{claim.tolerance:g} points"
            return REPRODUCED, f"within the {name}'s interval, {widened}"
    return NOT_REPRODUCED, f"the last round is {_beside(claim, final)}"


def _beside(claim: Claim, final: Summary) -> str:
    gap = 100 * final.mean - claim.value
    return f"{abs(gap):.2f} points {'above' if gap > 0 else 'below'} the claim"


def _difference(sources: Sources, claim: Claim, reading: dict[str, Any]) -> Judged:
    """The same seed with and without: a paired difference over seeds."""
    hospitals = claim.hospitals or 0
    evidence = _deciding(sources, hospitals, reading["arm"], reading["minus"])
    left = {r.seed: r.final_accuracy for r in evidence.runs(reading["arm"], hospitals)}
    right = {r.seed: r.final_accuracy for r in evidence.runs(reading["minus"], hospitals)}
    pairs = Summary.of([left[seed] - right[seed] for seed in left if seed in right])
    if pairs is None:
        return Judged(NOT_RUN, "", NOT_CHECKABLE, "no seed was run both with and without")
    deviation = "" if pairs.deviation is None else f" ± {100 * pairs.deviation:.2f}"
    measured = f"{100 * pairs.mean:+.2f}{deviation} points".replace("-", "−")
    bounds = pairs.interval()
    shown = "" if bounds is None else f"[{100 * bounds[0]:+.2f}, {100 * bounds[1]:+.2f}]"
    shown = shown.replace("-", "−")
    why_not = undecidable(evidence) or ("one seed gives no interval" if bounds is None else None)
    if why_not or bounds is None:
        return Judged(measured, shown, NOT_CHECKABLE, why_not or "")
    low, high = 100 * bounds[0] - claim.tolerance, 100 * bounds[1] + claim.tolerance
    if low <= claim.value <= high:
        why = "within the interval, widened by the claim's tolerance"
        return Judged(measured, shown, REPRODUCED, why)
    why = "with the same seeds, quantisation is all that differs: "
    why += "the paper's difference is run-to-run variation [infer]"
    return Judged(measured, shown, NOT_REPRODUCED, why)


def _epsilon(sources: Sources, claim: Claim, reading: dict[str, Any]) -> Judged:
    """Settled by accounting alone: no run is needed."""
    total = documented_epsilon(claim, reading)
    rounds = claim["rounds"]
    if math.isinf(total):
        reason = "without noise there is no differential privacy, whatever is clipped"
    else:
        reason = (
            f"exact Gaussian accounting of σ = {claim['sigma']:g} over {rounds} rounds "
            f"at δ = {small(claim['delta'])}"
        )
    verdict = REPRODUCED if total <= claim.value + claim.tolerance else NOT_REPRODUCED
    return Judged(f"{epsilon(total)} in total", "exact", verdict, reason)


def documented_epsilon(claim: Claim, reading: dict[str, Any]) -> float:
    """Total ε of the documented noise under one reading."""
    if reading["sensitivity"] == 0.0:
        return math.inf
    # A sum of K independently noised updates carries √K times the noise.
    sigma = claim["sigma"] * math.sqrt(reading.get("hospitals", 1))
    return gaussian_epsilon(sigma, reading["sensitivity"], claim["rounds"], claim["delta"])


def epsilon_of_a_hospital(claim: Claim, clip_norm: float) -> float:
    """The same over the paper's rounds for one hospital's update that is seen, clipped so."""
    alone = (r for r in claim.readings if "hospitals" not in r and r["sensitivity"] == clip_norm)
    return documented_epsilon(claim, next(alone))


def _parameters(sources: Sources, claim: Claim, reading: dict[str, Any]) -> Judged:
    from repro.report.items.figure_dpresnet import parameters

    count = parameters()
    verdict = REPRODUCED if count == claim.value else NOT_REPRODUCED
    reason = "counted over the layers as the authors' code stacks them"
    return Judged(f"{count:,}", "exact", verdict, reason)


def _sizes(sources: Sources, claim: Claim, reading: dict[str, Any]) -> Judged:
    partition = sources.side(f"partition/k{claim.hospitals}")
    if partition is None:
        return Judged(NOT_RUN, "", NOT_CHECKABLE, "no partition was computed")
    data = partition.get("dataset", {}).get("name", CLAIMED)
    if data != CLAIMED:
        why = f"the claim is about BloodMNIST, this partition about {data}"
        return Judged("–", "", NOT_COMPARABLE, why)
    sizes = partition["sizes"]
    measured = f"{min(sizes)} to {max(sizes)}"
    if sizes != claim.value:
        return Judged(measured, "exact", NOT_REPRODUCED, "the sizes differ")
    return Judged(measured, "exact", REPRODUCED, "every hospital's number of images agrees")
