"""One arm's audit, from its settings to a JSON file beside the runs.

``OUT/audit/ARM.json`` for an arm as it is, ``OUT/audit/ARM-CONTROL.json`` for a broken one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repro.audit.claim import AuditedClaim
from repro.audit.controls import Progress, actual
from repro.audit.many_run import ManyRun, audited_steps, many_run
from repro.audit.one_run import OneRun, one_run
from repro.checks import check_counts, check_fractions
from repro.errors import InputError
from repro.files import write_whole
from repro.randomness import RootSeed
from repro.runs.provenance import code_version
from repro.runs.settings import RunSettings


@dataclass(frozen=True)
class AuditPlan:
    """How much is tried, and with which confidence the findings hold, all together."""

    trials: int = 2000
    canaries: int = 40_000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_counts(self, trials=100, canaries=100)
        check_fractions(self, "confidence", zero=False)
        if self.confidence <= 0.5:
            raise InputError("confidence", self.confidence, "a number in (0.5, 1)")


@dataclass(frozen=True)
class AuditResult:
    """What was found about one arm, or one broken version of it."""

    claim: AuditedClaim
    control: str | None
    many: ManyRun
    one: OneRun | None  # None for arms that protect updates

    @property
    def epsilon(self) -> float:
        """Lower bound of the whole run's ε, without an assumption on the mechanism.

        The audited steps of the many-run test are part of the run only where the run draws every
        record in every step; else they stand for themselves.
        """
        found = [] if self.one is None else [self.one.epsilon]
        if self.claim.sample_rate >= 1:
            found.append(self.many.epsilon)
        return max(found, default=0.0)

    @property
    def exceeded(self) -> bool:
        """Is what is stated refuted, at the plan's confidence?"""
        assumed = 0.0 if self.one is None else self.one.independent_epsilon
        return self.many.exceeded or max(self.epsilon, assumed) > self.claim.epsilon

    @property
    def as_expected(self) -> bool:
        """Honest arms are not refuted; controls are."""
        return self.exceeded == (self.control is not None)


def work(claim: AuditedClaim, plan: AuditPlan) -> int:
    """Units of progress of one audit: trials, then steps."""
    pilot = max(20, plan.trials // 4)
    return 2 * (plan.trials + pilot) + (claim.steps if claim.unit == "record" else 0)


def audit(
    claim: AuditedClaim,
    plan: AuditPlan,
    *,
    control: str | None = None,
    seed: int = 0,
    progress: Progress = lambda done: None,
) -> AuditResult:
    """Both tests of one mechanism; each gets half of what the plan lets the confidence miss."""
    whole = RootSeed.from_user(seed)
    # Of its own: no noise of one audit is another's.
    root = RootSeed(whole.derive_bytes("audit", repr(claim), str(control)), whole.source)
    doing = actual(claim.noise_multiplier, control)
    each = 1 - (1 - plan.confidence) / 2
    many = many_run(claim, doing, trials=plan.trials, confidence=each, seed=root, progress=progress)
    one = None
    if claim.unit == "record":
        one = one_run(
            claim, doing, canaries=plan.canaries, confidence=each, seed=root, progress=progress
        )
    return AuditResult(claim, control, many, one)


def as_record(
    found: AuditResult, settings: RunSettings, plan: AuditPlan, seed: int, dataset: dict[str, Any]
) -> dict[str, Any]:
    """JSON-able: what was audited, how, and what came out."""
    return {
        "arm": settings.arm,
        "control": found.control,
        "hospitals": settings.hospitals,
        "profile": settings.profile,
        "seed": seed,
        "dataset": dataset,
        "plan": asdict(plan),
        "claim": asdict(found.claim),
        "audited_steps": audited_steps(found.claim),
        "many_run": asdict(found.many) | {"exceeded": found.many.exceeded},
        "one_run": None if found.one is None else asdict(found.one),
        "epsilon_stated": found.claim.epsilon,
        "epsilon_lower": found.epsilon,
        "confidence": plan.confidence,
        "exceeded": found.exceeded,
        "as_expected": found.as_expected,
        "code": code_version(),
    }


def write(record: dict[str, Any], out: Path) -> Path:
    """The record in its place below ``out``."""
    ending = "" if record["control"] is None else f"-{record['control']}"
    path = out / "audit" / f"{record['arm']}{ending}.json"
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return path
