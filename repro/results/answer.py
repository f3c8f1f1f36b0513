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
from repro.results.table import NOT_RUN, Column, Table
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
# What the rows of the answer are, the arm that measures each, and its true ε in words.
ROWS = (
    ("as most likely run: clipping, no noise", "clip-secagg", "∞"),
    ("as documented: that noise added", "documented-secagg", "{documented}\n(hospital)"),
    ("honest, protecting a record", "dpsgd-eps6-secagg", "6\n(record)"),
    ("honest, protecting a hospital", "calibrated-secagg", "6\n(hospital)"),
    ("no privacy: plain FedAvg", "fedavg", "∞"),
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


def answer(sources: Sources, verdicts: list[Verdict]) -> Answer:
    return Answer(
        claims=_claims(sources),
        found=(_privacy(sources), _costs(sources)),
        table=_table(sources),
        sure=_sure(sources, verdicts),
    )


def _claims(sources: Sources) -> str:
    parts = []
    for hospitals in (10, 20):
        private = sources.claims.accuracy(PRIVATE, hospitals)
        plain = sources.claims.accuracy(PLAIN, hospitals)
        if private and plain:
            parts.append(
                f"{private.value:.2f} % with {hospitals} hospitals "
                f"({plain.value - private.value:.2f} points below the same without either)"
            )
    budget = sources.claims.get("epsilon")
    return (
        "Hospitals that train a classifier of blood cells together, with differential privacy "
        f"(ε = {budget.value:g} [{budget.source}]) and secure aggregation, reach a test accuracy "
        f"of {' and '.join(parts)} [2nd], so privacy would cost almost nothing."
    )


def _documented(sources: Sources) -> float | None:
    """Total ε of the documented noise for one hospital's update, add/remove."""
    claim = sources.claims.get("epsilon")
    for reading in claim.readings:
        if reading["sensitivity"] == 7.0 and "hospitals" not in reading:
            return documented_epsilon(claim, reading)
    return None


def _privacy(sources: Sources) -> Finding:
    claim, documented = sources.claims.get("epsilon"), _documented(sources)
    if documented is None:
        return Finding("The privacy budget", "could not be checked: no accountant here.")
    return Finding(
        f"ε = {claim.value:g} does not hold.",
        "The noise was very likely never added: then nothing is guaranteed, "
        f"ε = {epsilon(math.inf)} [flwr, infer]. Had it been added as documented, a hospital would "
        f"have ε = {epsilon(documented)} after {claim['rounds']} rounds [calc].",
    )


def _costs(sources: Sources) -> Finding:
    """What each reading loses against plain FedAvg, in points."""
    evidence = sources.evidence
    counts = evidence.hospital_counts
    parts = []
    for what, arm in (
        ("clipping without noise", "clip-secagg"),
        ("the documented noise", "documented-secagg"),
        ("an honest ε = 6 for a record", "dpsgd-eps6-secagg"),
        ("an honest ε = 6 for a hospital", "calibrated-secagg"),
    ):
        costs = [_cost(evidence, arm, hospitals) for hospitals in counts]
        shown = ["not run" if cost is None else f"{cost:.1f}".replace("-", "−") for cost in costs]
        parts.append(
            f"{what} {' / '.join(shown if any(cost is not None for cost in costs) else shown[:1])}"
        )
    return Finding(
        "Points of accuracy lost",
        f"against plain FedAvg, with {' / '.join(map(str, counts))} hospitals: {'; '.join(parts)}.",
    )


def _cost(evidence: Evidence, arm: str, hospitals: int) -> float | None:
    plain, private = evidence.final("fedavg", hospitals), evidence.final(arm, hospitals)
    return 100 * (plain.mean - private.mean) if plain and private else None


def _table(sources: Sources) -> Table:
    """The answer's few numbers: true ε and accuracy of each reading."""
    evidence = sources.evidence
    counts = evidence.hospital_counts
    documented = _documented(sources)
    shown = "?" if documented is None else epsilon(documented)
    rows = [
        {"what": "the paper", "epsilon": f"{sources.claims.get('epsilon').value:g}\n(as stated)"}
    ]
    for hospitals in counts:
        claim = sources.claims.accuracy(PRIVATE, hospitals)
        rows[0][f"k{hospitals}"] = f"{claim.value:.2f} [{claim.source}]" if claim else "–"
    for what, arm, guarantee in ROWS:
        row = {"what": what, "epsilon": guarantee.format(documented=shown)}
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
            *(Column(f"k{k}", f"{k} hospitals", number=True) for k in counts),
        ],
        rows=rows,
        caption=f"Mean ± standard deviation over seeds, last round. {evidence.caption()}",
    )


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
    evidence = sources.evidence
    counts = Counter(v.verdict for v in verdicts)
    order = (REPRODUCED, NOT_REPRODUCED, NOT_COMPARABLE, NOT_CHECKABLE)
    tally = ", ".join(f"{counts[name]} {name}" for name in order)
    done, wanted = coverage(evidence)
    why_not = undecidable(evidence)
    if not evidence.records:
        accuracy = "no run is finished yet, so nothing is said about accuracies"
    elif why_not:
        accuracy = f"these runs decide no claim, since {why_not}"
    else:
        accuracy = "measured in the paper's setting on real images, so the claims are decided"
    return (
        Finding("ε:", "exact for each reading, since it follows from the setting alone; which "
                "reading the paper's runs were is inferred from the code [infer]."),
        Finding("Accuracy:", f"{accuracy}. {done} of {wanted} runs are finished."),
        Finding("The paper:", "its numbers are known from one third-party summary [2nd], its "
                "settings from the authors' code [code]; its seeds and deviations are unknown."),
        Finding("Verdicts:", f"{tally}."),
    )  # fmt: skip
