"""What honest privacy reaches and costs: every honest arm beside its own twin without privacy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from repro.accounting import (
    GaussianEvent,
    PoissonSampledGaussianEvent,
    gaussian_sigma,
    search_epsilon,
)
from repro.formatting import small
from repro.report.answer_table import counts_in_words
from repro.report.comparison import NOT_RESOLVED, compare, signed
from repro.report.evidence import Evidence
from repro.report.privacy import epsilon, replaced_epsilon
from repro.report.shown import shown
from repro.report.sources import Sources
from repro.report.statistics import Summary, percent
from repro.report.table import NOT_RUN
from repro.runs.arm import STATED, Arm
from repro.runs.arms import ARMS, DPRESNET, FEDAVG, POOLED, RECORD_CLEAR, RECORD_SHARED, SCATTERING
from repro.runs.guarantees import promise, protected_unit
from repro.runs.profiles import NEWTON_SEARCH, PROFILES, SCATTERING_SEARCH
from repro.runs.record import RunRecord

LENGTHS = "ablations/training-length"  # the side file that holds the longer runs


class Finding(NamedTuple):
    """One line of the answer: a bold lead and a sentence or two."""

    lead: str
    text: str


def honest_arms() -> list[Arm]:
    """The answer's arms that promise a record the ε which the paper names."""
    return [arm for arm, _ in shown("answer") if arm.epsilon == STATED]


def _noise(arm: Arm) -> str:
    return (
        "noise shared"
        if arm.trainer.startswith(("shared", "searched"))
        else "each hospital's own noise"
    )


def _run(evidence: Evidence) -> list[Arm]:
    """The honest arms that were run with every number of hospitals."""
    counts = evidence.hospital_counts
    return [
        arm
        for arm in honest_arms()
        if arm.search is None  # whose ε does not hold against the server
        and all(evidence.final(arm.name, k) for k in counts)
    ]


def recommended(evidence: Evidence) -> Arm | None:
    """The honest arm that reaches most, by the number of hospitals that it does worst with."""

    def worst(arm: Arm) -> float:
        finals = [evidence.final(arm.name, k) for k in evidence.hospital_counts]
        return min(final.mean for final in finals if final is not None)

    return max(_run(evidence), key=worst, default=None)


def best_honest(evidence: Evidence) -> str:
    """The third line to repeat: what the best honest arm has."""
    run, best = _run(evidence), recommended(evidence)
    if best is None:
        return f"What honest privacy costs: {NOT_RUN}."
    if silent := _cannot_say(evidence, best):
        return f"What honest privacy costs these runs cannot say: {silent}."
    where = " inside the secure sum" if best.trainer.startswith("shared") else ""
    exchanged = exchange(evidence, best.name, "; ", " if exchanged for another")
    return (
        f"Honest privacy is possible: {best.family.sentence}, {_noise(best)}{where}, reach "
        f"{_means(evidence, best)} ({counts_in_words(evidence)}) at {promise(best.name)} "
        f"(zero-out{exchanged}).{_untuned(evidence, run)}"
    )


def _means(evidence: Evidence, arm: Arm) -> str:
    """``95.7 / 95.7 %``: for lines to repeat; how sure they are stands in the tables."""
    finals = (evidence.final(arm.name, hospitals) for hospitals in evidence.hospital_counts)
    return " / ".join(f"{100 * final.mean:.1f}" for final in finals if final is not None) + " %"


def _cannot_say(evidence: Evidence, arm: Arm) -> str:
    """Why what these runs reach is no finding on privacy; "" where it is one."""
    if evidence.kind == "synthetic":
        return "a program drew their images"
    seeds = min(len(evidence.runs(arm.name, k)) for k in evidence.hospital_counts)
    return "there is one seed only" if seeds == 1 else ""


def _untuned(evidence: Evidence, run: list[Arm]) -> str:
    """What is reached where ε covers the choice of settings too; "" where that was not run."""
    free = [arm for arm in run if not arm.tuned]
    if not free:
        return ""
    reached = "; ".join(_means(evidence, arm) for arm in free)
    return f" No setting chosen on private images, a choice no ε covers: {reached}."


def exchange(evidence: Evidence, arm: str, before: str = "", after: str = "") -> str:
    """``ε = 13.0 / 13.5`` for one exchanged for another, by hospitals; "" where none is known."""
    unit = protected_unit(arm)
    runs = [evidence.runs(arm, hospitals) for hospitals in evidence.hospital_counts]
    if unit is None:
        return ""
    found = [epsilon(replaced_epsilon(some, unit)) for some in runs if some]
    if not found or any(one == epsilon(math.inf) for one in found):
        return ""
    return f"{before}ε = {' / '.join(found)}{after}"


def honest_findings(sources: Sources) -> list[Finding]:
    evidence = sources.evidence
    parts = [_reached(evidence, arm) for arm in honest_arms() if arm.family != DPRESNET]
    pooled = evidence.final(POOLED, evidence.hospital_counts[0])
    free = [a.family.sentence for a in honest_arms() if not a.tuned and a.search is None]
    found = [
        Finding(
            "What honest privacy reaches with a model that suits few images",
            f"at ε = 6 for a record, with secure aggregation and {counts_in_words(evidence)} "
            "(after a comma: points against itself without privacy; spreads in the table below): "
            f"{'; '.join(parts)}. Scattering with all images in one trusted place, "
            f"δ = {small(ARMS[POOLED].delta)}: {percent(pooled)}{' %' if pooled else ''}. No ε "
            f"here covers the search for settings, on validation images: about {SCATTERING_SEARCH} "
            f"runs for scattering and some {NEWTON_SEARCH} simulated settings for second-order "
            f"steps{charged(evidence)} (`repro search-cost`), had their numbers been drawn at "
            f"random. There was none for {' and '.join(free)}.",
        )
    ]
    return found + _trained_longer(sources) + _after_a_night(sources.other("overnight"))


def _reached(evidence: Evidence, arm: Arm) -> str:
    """``…: 75.5 / 71.3 %, −11.0 / −13.7``; spreads and seeds stand in the tables."""
    counts = evidence.hospital_counts
    reached = _means(evidence, arm) if any(evidence.final(arm.name, k) for k in counts) else NOT_RUN
    twin = arm.presentation.twin
    pairs = [] if twin is None else [compare(evidence, arm.name, twin, k) for k in counts]
    costs = " / ".join(
        signed(pair.summary.mean) + ("" if pair.resolved else f" ({NOT_RESOLVED})")
        for pair in pairs
        if pair is not None
    )
    return f"{arm.family.sentence}, {_noise(arm)}: {reached}{costs and f', {costs}'}"


def charged(evidence: Evidence) -> str:
    """What the searches would cost by random stopping: (scattering, second-order), at most.

    Each of so many trials on average spends what one run of the arm does, at its worst hospital.
    """
    arms = honest_arms()
    both = (
        next(arm for arm in arms if arm.family == SCATTERING),
        next(arm for arm in arms if arm.trainer == "shared-newton"),
    )
    first = evidence.hospital_counts[0]
    costs = [search_charge(arm, evidence.runs(arm.name, first)) for arm in both]
    if not all(costs):
        return ""
    return f"; random stopping would charge ε = {' and '.join(f'{cost:.1f}' for cost in costs)}"


def searched(arm: Arm) -> int | None:
    """How many trials on private images chose the arm's settings, about; None where not counted."""
    if not arm.tuned:
        return None
    if arm.trainer == "shared-newton":
        return NEWTON_SEARCH
    return SCATTERING_SEARCH if arm.family == SCATTERING and arm.private else None


def search_charge(arm: Arm, runs: Iterable[RunRecord]) -> float:
    """ε of the best of ``searched(arm)`` runs of ``arm`` on average; 0 where it was not run."""
    trials = searched(arm)
    assert trials is not None, arm.name
    if arm.trainer == "shared-newton":  # one Gaussian release that is exactly (ε, δ)-DP
        assert arm.epsilon is not None
        sigma = gaussian_sigma(arm.epsilon, 1.0, 1, arm.delta)
        return search_epsilon({GaussianEvent(sigma): 1}, arm.delta, trials)
    steps = {
        (row["noise_multiplier"], row["sample_rate"], row["steps"], row["delta"])
        for run in runs
        for row in run.privacy
        if (row["unit"], row["relation"]) == ("record", "add_remove") and "steps" in row
    }
    return max(
        (
            search_epsilon({PoissonSampledGaussianEvent(noise, rate): count}, delta, trials)
            for noise, rate, count, delta in steps
        ),
        default=0.0,
    )


def _after_a_night(evidence: Evidence) -> list[Finding]:
    """The paper's network at a real length: Table 7 in a sentence; nothing before it was run."""
    plain, honest = FEDAVG, RECORD_SHARED
    pairs = {k: compare(evidence, honest, plain, k) for k in evidence.hospital_counts}
    seeds = {k: ", ".join(map(str, pair.seeds)) for k, pair in pairs.items() if pair is not None}
    if not seeds:
        return []

    def shown(arm: str) -> str:
        return " / ".join(percent(evidence.final(arm, k)) for k in seeds)

    profile = PROFILES[evidence.profile]
    return [
        Finding(
            "After a night's training, the paper's network",
            f"(width {profile.width}, {profile.rounds * profile.local_epochs:g} local epochs) has "
            f"{shown(plain)} % without privacy and {shown(honest)} % at {promise(honest)}, noise "
            f"shared ({' / '.join(map(str, seeds))} hospitals, seeds "
            f"{' / '.join(dict.fromkeys(seeds.values()))}; Table 7).",
        )
    ]


def _trained_longer(sources: Sources) -> list[Finding]:
    """The paper's network with as much training as scattering's; none if it was not run."""
    from repro.ablations.catalogue import LONG

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
    plain, private = long.get(FEDAVG), long.get(RECORD_CLEAR)
    if not own or not own <= ours or plain is None or private is None:
        return []
    cost = 100 * (private.mean - plain.mean)
    return [
        Finding(
            "Trained longer, the paper's network",
            f"has {percent(plain)} % without privacy and {percent(private)} % at "
            f"{promise(RECORD_CLEAR)}, {signed(cost)} points, both after {LONG}, with "
            f"{rows[0]['hospitals']} hospitals (ablation training-length).",
        )
    ]
