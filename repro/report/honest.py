"""What honest privacy reaches and costs: every honest arm beside its own twin without privacy."""

from __future__ import annotations

from dataclasses import dataclass

from repro.accounting import PoissonSampledGaussianEvent, RDPAccountant
from repro.formatting import small
from repro.report.answer_table import counts_in_words
from repro.report.comparison import compared, signed
from repro.report.evidence import Evidence
from repro.report.sources import Sources
from repro.report.statistics import Summary, percent
from repro.report.table import NOT_RUN
from repro.runs.arms import ARMS
from repro.runs.guarantees import promise
from repro.runs.profiles import NEWTON_SEARCH, SCATTERING_SEARCH

LENGTHS = "ablations/training-length"  # the side file that holds the longer runs


@dataclass(frozen=True)
class Pair:
    """An honest arm, its twin without privacy, and how a sentence calls the model."""

    arm: str
    twin: str | None  # None: no arm trains the same without noise
    model: str
    noise: str


_PAIRS = (
    Pair("dpsgd-eps6-secagg", "fedavg-secagg", "the paper's network", "each hospital's own noise"),
    Pair("shared-dpsgd-eps6", "fedavg-secagg", "the paper's network", "noise shared"),
    Pair(
        "scattering-dpsgd-eps6-secagg",
        "scattering-fedavg",
        "fixed wavelet scattering and a linear layer",
        "each hospital's own noise",
    ),
    Pair(
        "scattering-shared-eps6",
        "scattering-fedavg",
        "fixed wavelet scattering and a linear layer",
        "noise shared inside the secure sum",
    ),
    Pair(
        "scattering-newton-eps6",
        None,
        "scattering in rings and private second-order steps",
        "noise shared inside the secure sum",
    ),
    Pair(
        "random-newton-eps6",
        None,
        "random filters (no outside data) and private second-order steps",
        "noise shared inside the secure sum",
    ),
    Pair(
        "public-newton-eps6",
        None,
        "an ImageNet backbone (public data) and private second-order steps",
        "noise shared inside the secure sum",
    ),
)
PAIRS = tuple(pair for pair in _PAIRS if pair.arm in ARMS)
POOLED = "scattering-central-dpsgd-eps6"
CHARGED = "scattering-dpsgd-eps6-secagg"  # the arm whose settings the search chose


def levels(evidence: Evidence, arm: str) -> str:
    """Accuracy for every number of hospitals, ``75.54 ± 0.25 / 71.26 ± 0.14 %``; or not run."""
    finals = [evidence.final(arm, hospitals) for hospitals in evidence.hospital_counts]
    if not any(finals):
        return NOT_RUN
    return " / ".join(percent(final) for final in finals) + " %"


def best_honest(evidence: Evidence) -> str:
    """The third line to repeat: what the best honest arm has, and what its twin has."""
    counts = evidence.hospital_counts
    run = [pair for pair in PAIRS if all(evidence.final(pair.arm, k) for k in counts)]
    if not run:
        return f"What honest privacy costs: {NOT_RUN}."

    def worst(pair: Pair) -> float:
        finals = [evidence.final(pair.arm, k) for k in counts]
        return min(final.mean for final in finals if final is not None)

    best = max(run, key=worst)
    beside = (
        f", against {levels(evidence, best.twin)} without privacy"
        if best.twin and evidence.final(best.twin, counts[0])
        else ""
    )
    return (
        f"Honest privacy ({promise(best.arm)}) with secure aggregation is possible: {best.model}, "
        f"with {best.noise}, reach {levels(evidence, best.arm)}{beside} "
        f"({counts_in_words(evidence)})."
    )


def honest_findings(sources: Sources) -> list[tuple[str, str]]:
    """(lead, text) of each finding on honest privacy."""
    evidence = sources.evidence
    parts = [_reached(evidence, pair) for pair in PAIRS if pair.twin != "fedavg-secagg"]
    pooled = evidence.final(POOLED, evidence.hospital_counts[0])
    found = [
        (
            "What honest privacy reaches with a model that suits few images",
            f"at ε = 6 for a record, with secure aggregation and {counts_in_words(evidence)}: "
            f"{'; '.join(parts)}. With all images in one trusted place, {promise(POOLED)} and "
            f"δ = {small(ARMS[POOLED].delta)}: {percent(pooled)}{' %' if pooled else ''}. No ε "
            f"here covers the search for settings, on validation images: about {SCATTERING_SEARCH} "
            f"runs for scattering{charged(evidence)}, and some {NEWTON_SEARCH} simulated settings "
            "for second-order steps (docs/feature-search.md says what such a search would cost).",
        )
    ]
    return found + _trained_longer(sources)


def _reached(evidence: Evidence, pair: Pair) -> str:
    reached = f"{pair.model}, {pair.noise}: {levels(evidence, pair.arm)}"
    if pair.twin is None:
        return reached
    points = compared(evidence, pair.arm, pair.twin)
    return f"{reached}, {points} points against itself without privacy"


def charged(evidence: Evidence) -> str:
    """What so many runs of the arm cost together: their steps composed, at the worst hospital."""
    totals = []
    for run in evidence.runs(CHARGED, evidence.hospital_counts[0]):
        for row in run.privacy:
            if (row["unit"], row["relation"]) == ("record", "add_remove") and "steps" in row:
                accountant = RDPAccountant("add_remove")
                step = PoissonSampledGaussianEvent(row["noise_multiplier"], row["sample_rate"])
                accountant.compose(step, SCATTERING_SEARCH * row["steps"])
                totals.append(accountant.epsilon(row["delta"])[0])
    return f", which would cost ε = {max(totals):.0f} if it were charged" if totals else ""


def _trained_longer(sources: Sources) -> list[tuple[str, str]]:
    """The paper's network with as much training as scattering's; none if it was not run."""
    from repro.ablations.training_length import LONG

    side = sources.side(LENGTHS)
    rows = side["data"]["variants"] if side else []
    own = {run_id for row in rows if row["variant"] != LONG for run_id in row["runs"]}
    long = {
        row["series"]: Summary(row["mean"], row["deviation"], len(row["seeds"]))
        for row in rows
        if row["variant"] == LONG
    }
    # Its shorter runs are the matrix' own; others' come of another profile or other images.
    ours = {record.run_id for record in sources.evidence.records}
    plain, private = long.get("fedavg"), long.get("dpsgd-eps6")
    if not own or not own <= ours or plain is None or private is None:
        return []
    cost = 100 * (private.mean - plain.mean)
    return [
        (
            "Trained longer, the paper's network",
            f"has {percent(plain)} % without privacy and {percent(private)} % at "
            f"{promise('dpsgd-eps6')}, {signed(cost)} points, both after {LONG}, with "
            f"{rows[0]['hospitals']} hospitals (ablation training-length).",
        )
    ]
