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
from repro.results.privacy import epsilon
from repro.results.statistics import percent
from repro.results.verdicts import (
    NOT_CHECKABLE,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    REPRODUCED,
    Verdict,
    documented_epsilon,
    undecidable,
)

PRIVATE = "DP+ / SecAgg+"
PLAIN = "DP− / SecAgg−"


@dataclass(frozen=True)
class Finding:
    """One line of the answer: a bold lead and a sentence or two."""

    lead: str
    text: str


@dataclass(frozen=True)
class Answer:
    claims: str
    found: tuple[Finding, ...]
    sure: tuple[Finding, ...]


def answer(sources: Sources, verdicts: list[Verdict]) -> Answer:
    found = (
        _privacy(sources),
        _reading(sources, "As most likely run", "clip-secagg", "clipping at 7, no noise, SecAgg"),
        _reading(sources, "As documented", "documented-secagg", "the documented noise, SecAgg"),
        _honest(sources),
        _plain(sources),
    )
    return Answer(_claims(sources), found, _sure(sources, verdicts))


def _claims(sources: Sources) -> str:
    parts = []
    for hospitals in (10, 20):
        private = sources.claims.accuracy(PRIVATE, hospitals)
        plain = sources.claims.accuracy(PLAIN, hospitals)
        if private and plain:
            parts.append(
                f"{private.value:.2f} % with {hospitals} hospitals "
                f"({plain.value - private.value:.2f} points below plain federated learning)"
            )
    budget = sources.claims.get("epsilon")
    return (
        "Hospitals that train a classifier of blood cells together, with differential privacy "
        f"(ε = {budget.value:g} [{budget.source}]) and secure aggregation, reach a test accuracy "
        f"of {' and '.join(parts)} [2nd]: privacy at almost no cost."
    )


def _privacy(sources: Sources) -> Finding:
    claim = sources.claims.get("epsilon")
    by_sensitivity = {
        reading["sensitivity"]: documented_epsilon(claim, reading)
        for reading in claim.readings
        if "hospitals" not in reading
    }
    documented = by_sensitivity.get(7.0)
    if documented is None:
        return Finding("The privacy budget", "could not be checked: no accountant here.")
    return Finding(
        f"ε = {claim.value:g} does not hold.",
        f"The documented noise guarantees ε = {epsilon(documented)} for a hospital over "
        f"{claim['rounds']} rounds [calc]; the noise was very likely never added, which "
        f"guarantees nothing (ε = {epsilon(math.inf)}) [flwr, infer].",
    )


def _reading(sources: Sources, lead: str, arm: str, what: str) -> Finding:
    return Finding(f"{lead}:", f"{what}: {_levels(sources.evidence, arm)}.")


def _honest(sources: Sources) -> Finding:
    evidence = sources.evidence
    return Finding(
        "With an honest ε = 6:",
        f"for a record (DP-SGD in every hospital, SecAgg): {_levels(evidence, 'dpsgd-eps6-secagg')}"
        f"; for a whole hospital: {_levels(evidence, 'calibrated-secagg')}.",
    )


def _plain(sources: Sources) -> Finding:
    evidence = sources.evidence
    return Finding(
        "Without privacy:",
        f"FedAvg reaches {_levels(evidence, 'fedavg')}; with secure aggregation "
        f"{_levels(evidence, 'fedavg-secagg')}.",
    )


def _levels(evidence: Evidence, arm: str) -> str:
    """``97.12 ± 0.21 % (10 hospitals) and …``, or that it was not run."""
    parts = []
    for hospitals in evidence.hospital_counts:
        final = evidence.final(arm, hospitals)
        level = "not run" if final is None else f"{percent(final)} %"
        parts.append(f"{level} ({hospitals} hospitals)")
    if all(part.startswith("not run") for part in parts):
        return "not run"
    return " and ".join(parts)


def coverage(evidence: Evidence) -> tuple[int, int]:
    """(finished runs of the matrix, runs it has)."""
    profile = PROFILES[evidence.profile]
    wanted = {
        (arm, hospitals, seed)
        for arm in ARMS
        for hospitals in profile.hospitals
        for seed in profile.seeds
    }
    done = {(r.arm, r.hospitals, r.seed) for r in evidence.records}
    return len(wanted & done), len(wanted)


def _sure(sources: Sources, verdicts: list[Verdict]) -> tuple[Finding, ...]:
    evidence = sources.evidence
    counts = Counter(v.verdict for v in verdicts)
    order = (REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE, NOT_CHECKABLE)
    tally = ", ".join(f"{counts[name]} {name}" for name in order)
    done, wanted = coverage(evidence)
    why_not = undecidable(evidence)
    if not evidence.records:
        accuracy = "no run is finished yet, so nothing is said about accuracies"
    elif why_not:
        accuracy = f"these runs decide no claim about accuracy: {why_not}"
    else:
        accuracy = "the paper's setting on real images, so the claims about accuracy are decided"
    return (
        Finding("Privacy:", "certain up to the reading, since it follows from the formula alone."),
        Finding("Accuracy:", f"{accuracy}. {done} of {wanted} runs are there."),
        Finding("Verdicts:", f"{tally}."),
        Finding(
            "The paper itself:",
            "its numbers are known from one third-party summary [2nd], its settings from the "
            "authors' code [code]; no seeds or deviations are known.",
        ),
    )
