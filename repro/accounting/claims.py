"""Checks a published privacy claim: clip norm, noise, rounds and trust in, true ε in plain words.

A claim says "(ε, δ)-DP" and names, somewhere, a clip norm, a sensitivity and a noise. What that
guarantees follows from the clip norm (how far one unit can move what is released), the noise
really added, the number of releases and who sees what. Pure functions; no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from repro.accounting import checks
from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.checks import ADD_REMOVE, HOSPITAL, RECORD, REPLACE_ONE, Number, Relation
from repro.accounting.composition import BEST, Bound, compose_epsilon
from repro.accounting.events import GaussianEvent, PoissonSampledGaussianEvent, PrivacyEvent
from repro.accounting.gaussian import basic_composition, classical_sigma, gaussian_sigma
from repro.errors import InputError

UPDATE, PER_RECORD = "update", "record"
LEVELS = (UPDATE, PER_RECORD)

SERVER = "server, one update"
AFTER_SUM = "after an honest secure sum"
RELEASED = "whoever sees the model"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper or a program says of itself.

    clip_norm: largest L2 norm of what one unit contributes (level "update": a client's whole
    update; level "record": one record's gradient). sigma: noise deviation per coordinate, in the
    unit of clip_norm; or noise_multiplier: sigma ÷ clip_norm; or neither, and sigma is what the
    classical formula gives for ``epsilon``, ``delta`` and ``sensitivity``. sensitivity: what the
    noise was computed from (default: clip_norm). rounds: releases of a client's update, or
    rounds of ``steps`` record-level steps each. clients: in the federation; client_rate: share
    of them in a round; honest: share of those whose noise really is in the sum and unknown to
    the server. noise_added: False where the program is known to discard its noise.
    """

    clip_norm: Number
    delta: Number
    epsilon: Number | None = None
    sensitivity: Number | None = None
    sigma: Number | None = None
    noise_multiplier: Number | None = None
    rounds: Number = 1
    clients: Number = 1
    client_rate: Number = 1.0
    secure_aggregation: bool = False
    honest: Number = 1.0
    level: str = UPDATE
    sample_rate: Number = 1.0
    steps: Number = 1
    noise_added: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.positive("clip_norm", self.clip_norm)
        checks.delta(self.delta)
        for field in ("epsilon", "sensitivity"):
            if getattr(self, field) is not None:
                checks.positive(field, getattr(self, field))
        if self.sigma is not None:
            checks.non_negative("sigma", self.sigma)
        if self.noise_multiplier is not None:
            checks.noise_multiplier(self.noise_multiplier)
        if self.sigma is not None and self.noise_multiplier is not None:
            raise InputError("noise_multiplier", self.noise_multiplier, "sigma or this, not both")
        if self.sigma is None and self.noise_multiplier is None and self.epsilon is None:
            raise InputError("sigma", None, "one of sigma, noise_multiplier and epsilon")
        checks.count("rounds", self.rounds, least=1)
        checks.count("clients", self.clients, least=1)
        checks.count("steps", self.steps, least=1)
        checks.sample_rate(self.sample_rate)
        checks.one_of("level", self.level, LEVELS)
        for field in ("client_rate", "honest"):
            checks.real(field, getattr(self, field), lambda x: 0 < x <= 1, "above 0, at most 1")

    @property
    def noise(self) -> float:
        """σ that is said to be added, per coordinate of one contribution."""
        if self.sigma is not None:
            return float(self.sigma)
        if self.noise_multiplier is not None:
            return float(self.noise_multiplier) * float(self.clip_norm)
        assert self.epsilon is not None
        return classical_sigma(self.epsilon, self.claimed_sensitivity, self.delta)

    @property
    def claimed_sensitivity(self) -> float:
        return float(self.clip_norm if self.sensitivity is None else self.sensitivity)

    @property
    def in_sum(self) -> int:
        """Clients whose noise is in one sum, the honest ones; at least the one protected."""
        return max(1, math.floor(float(self.clients) * self.client_rate * self.honest + 1e-9))

    def event(self, sigma: float) -> PrivacyEvent:
        multiplier = sigma / float(self.clip_norm)
        if self.level == PER_RECORD:
            return PoissonSampledGaussianEvent(multiplier, self.sample_rate)
        return GaussianEvent(multiplier, unit=HOSPITAL)

    @property
    def releases(self) -> int:
        """Noised releases that touch one unit, in all rounds."""
        return int(self.rounds) * (int(self.steps) if self.level == PER_RECORD else 1)


@dataclass(frozen=True)
class Finding:
    """What holds for one view and relation. sigma_needed: per contribution, for the claimed ε."""

    view: str
    unit: str
    relation: Relation
    sensitivity: float
    epsilon_round: float
    epsilon_total: float
    method: str
    sigma_needed: float | None

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "relation": self.relation.value}


@dataclass(frozen=True)
class Verdict:
    """All findings, and what they say of the claim."""

    claim: Claim
    findings: tuple[Finding, ...]
    nominal_round: float  # were the claimed sensitivity true
    nominal_total: float
    basic: tuple[float, float] | None  # the claimed budget added up over the rounds: (ε, δ)
    holds: bool | None  # None: no ε was claimed
    words: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; these keys are stable."""
        return {
            "holds": self.holds,
            "verdict": self.words,
            "epsilon_claimed": self.claim.epsilon,
            "delta": self.claim.delta,
            "sigma": self.claim.noise,
            "noise_added": self.claim.noise_added,
            "clip_norm": self.claim.clip_norm,
            "sensitivity_claimed": self.claim.claimed_sensitivity,
            "level": self.claim.level,
            "rounds": self.claim.rounds,
            "nominal": {
                "epsilon_round": self.nominal_round,
                "epsilon_total": self.nominal_total,
                "basic_composition": None if self.basic is None else list(self.basic),
            },
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": list(self.claim.notes),
        }


def check(claim: Claim) -> Verdict:
    """True ε of a claim, per view and relation, the noise it would need, and a verdict."""
    findings = tuple(
        _finding(claim, view, unit, relation)
        for view in _views(claim)
        for unit, relation in _stated(claim)
    )
    nominal = _nominal(claim, 1), _nominal(claim, claim.releases)
    basic = None
    if claim.epsilon is not None:
        basic = basic_composition(claim.epsilon, claim.delta, claim.rounds)
    first = findings[0]
    holds = None if claim.epsilon is None else first.epsilon_total <= claim.epsilon
    words = _words(claim, findings, nominal, holds)
    return Verdict(claim, findings, *nominal, basic, holds, words)


def _views(claim: Claim) -> list[str]:
    if claim.level == PER_RECORD:  # the noise is inside the training: every view has all of it
        return [RELEASED]
    return [SERVER, AFTER_SUM] if claim.secure_aggregation else [SERVER]


def _stated(claim: Claim) -> list[tuple[str, Relation]]:
    """(unit, relation); a record is covered by replacing the update it is part of."""
    if claim.level == PER_RECORD:
        return [(RECORD, ADD_REMOVE)]
    return [(HOSPITAL, ADD_REMOVE), (HOSPITAL, REPLACE_ONE), (RECORD, REPLACE_ONE)]


def _finding(claim: Claim, view: str, unit: str, relation: Relation) -> Finding:
    share = math.sqrt(claim.in_sum) if view == AFTER_SUM else 1.0
    once = int(claim.steps) if claim.level == PER_RECORD else 1
    factor = 2.0 if relation == REPLACE_ONE else 1.0
    total = _epsilon(claim, claim.noise * share, relation, claim.releases)
    return Finding(
        view=view,
        unit=unit,
        relation=relation,
        sensitivity=factor * float(claim.clip_norm),
        epsilon_round=_epsilon(claim, claim.noise * share, relation, once).epsilon,
        epsilon_total=total.epsilon,
        method=total.method,
        sigma_needed=_sigma_needed(claim, factor, share),
    )


def _epsilon(claim: Claim, sigma: float, relation: Relation, releases: int) -> Bound:
    event = claim.event(sigma if claim.noise_added else 0.0)
    return compose_epsilon({event: releases}, relation, event.unit, float(claim.delta))


def _nominal(claim: Claim, releases: int) -> float:
    """ε if one unit could move the release by no more than the claimed sensitivity."""
    scaled = claim.noise * float(claim.clip_norm) / claim.claimed_sensitivity
    event = claim.event(scaled)
    return compose_epsilon({event: releases}, ADD_REMOVE, event.unit, float(claim.delta)).epsilon


def _sigma_needed(claim: Claim, factor: float, share: float) -> float | None:
    """σ per contribution for which the claimed ε is true in total."""
    if claim.epsilon is None:
        return None
    clip = float(claim.clip_norm)
    if claim.level == UPDATE:
        return gaussian_sigma(claim.epsilon, factor * clip, claim.rounds, claim.delta) / share
    multiplier, _ = calibrate_noise_multiplier(
        claim.epsilon, claim.delta, claim.sample_rate, claim.releases, accountant=BEST
    )
    return multiplier * clip


def _words(
    claim: Claim, findings: tuple[Finding, ...], nominal: tuple[float, float], holds: bool | None
) -> str:
    """The verdict, for a reviewer to quote."""
    first, unit = findings[0], "record" if claim.level == PER_RECORD else "client's whole update"
    over = f"{claim.rounds} rounds" if claim.rounds != 1 else "one round"
    if not claim.noise_added:
        return (
            f"No noise is added: clipping at {claim.clip_norm:g} alone guarantees nothing "
            "(ε = ∞), for anybody, in any view. "
            + _claimed(claim, "The claim does not hold.", "There is no guarantee to state.")
        )
    parts = []
    if claim.epsilon is not None:
        parts.append(
            f"The claim of ε = {claim.epsilon:g} at δ = {claim.delta:g} "
            + ("holds" if holds else "does not hold")
            + f" for adding or removing one {unit} over {over} ({first.view})."
        )
    parts.append(
        f"True ε: {shown(first.epsilon_round)} in one round and {shown(first.epsilon_total)} in "
        f"total ({first.view}, at δ = {claim.delta:g})."
    )
    if claim.claimed_sensitivity < float(claim.clip_norm) * (1 - 1e-12):
        parts.append(
            f"The noise was computed for a sensitivity of {claim.claimed_sensitivity:g}, but "
            f"clipping at {claim.clip_norm:g} lets one {unit} move by {claim.clip_norm:g}; were "
            f"{claim.claimed_sensitivity:g} true, ε would be {shown(nominal[1])} in total."
        )
    elif claim.epsilon is not None and holds is False and claim.rounds != 1:
        parts.append("The budget of one release is spent again in every round.")
    parts += [
        f"If only a sum is seen in which {claim.in_sum} clients' noise is honest, "
        f"{shown(finding.epsilon_total)} in total: by trust in the protocol and in them."
        for finding in findings
        if finding.view == AFTER_SUM and finding.relation == ADD_REMOVE
    ]
    if claim.epsilon is not None and first.sigma_needed is not None:
        parts.append(
            f"ε = {claim.epsilon:g} in total needs σ = {first.sigma_needed:.3g} "
            f"({'has' if holds else 'instead of'} {claim.noise:.3g})."
        )
    if claim.level == UPDATE:
        parts.append("No record is clipped: a record is protected as part of its client's update.")
    else:
        parts.append("A whole client is not protected.")
    return " ".join(parts)


def _claimed(claim: Claim, with_claim: str, without: str) -> str:
    return without if claim.epsilon is None else with_claim


def shown(epsilon: float) -> str:
    """Four digits for a reader: 5.61, 2759, 2.1e+08, ∞."""
    if math.isinf(epsilon):
        return "∞"
    return f"{epsilon:,.0f}" if 1000 <= epsilon < 1e6 else f"{epsilon:.3g}"
