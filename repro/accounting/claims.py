"""Checks a published privacy claim: clip norm, noise, rounds and trust in, true ε in plain words.

A claim says "(ε, δ)-DP" and names, somewhere, a clip norm, a sensitivity and a noise. What that
guarantees follows from the clip norm (how far one unit can move what is released), the noise
really added, the number of releases and who sees what. Pure functions; no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.checks import ADD_REMOVE, HOSPITAL, RECORD, REPLACE_ONE, ZERO_OUT, Relation
from repro.accounting.claim import PER_RECORD, POISSON, SAMPLINGS, SHUFFLED, UPDATE, PrivacyClaim
from repro.accounting.composition import compose_epsilon, lower_epsilon
from repro.accounting.gaussian import basic_composition, gaussian_sigma
from repro.accounting.shuffled import shuffled_lower_epsilon

SERVER = "server, one update"
AFTER_SUM = "after an honest secure sum"
RELEASED = "whoever sees the model"

_MOVES = {ADD_REMOVE: "adding or removing", REPLACE_ONE: "replacing", ZERO_OUT: "blanking out"}
_SAID = {True: "holds", False: "does not hold", None: "is not proved here"}
_TIGHT = 0.99  # a lower bound this close to the upper one: the two are one number to a reader


@dataclass(frozen=True)
class Finding:
    """What holds for one view and relation.

    epsilon_round and epsilon_total are proved; no proof can go below epsilon_lower in total.
    holds: the claim, for this view and relation; None where no ε was claimed, or it is neither
    proved nor refuted. sigma_needed: per contribution, for the claimed ε.
    """

    view: str
    unit: str
    relation: Relation
    sensitivity: float
    epsilon_round: float
    epsilon_total: float
    epsilon_lower: float
    method: str
    sigma_needed: float | None
    holds: bool | None

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "relation": self.relation.value}


@dataclass(frozen=True)
class PrivacyVerdict:
    """All findings, and what they say of the claim."""

    claim: PrivacyClaim
    findings: tuple[Finding, ...]
    nominal_round: float  # were the claimed sensitivity true
    nominal_total: float
    basic: tuple[float, float] | None  # the claimed budget added up over the rounds: (ε, δ)
    holds: bool | None  # of the first finding; None as there
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
            "sampling": self.claim.sampling if self.claim.level == PER_RECORD else None,
            "rounds": self.claim.rounds,
            "nominal": {
                "epsilon_round": self.nominal_round,
                "epsilon_total": self.nominal_total,
                "basic_composition": None if self.basic is None else list(self.basic),
            },
            "findings": [finding.as_dict() for finding in self.findings],
            "notes": list(self.claim.notes),
        }


def check(claim: PrivacyClaim) -> PrivacyVerdict:
    """True ε of a claim, per view and relation, the noise it would need, and a verdict."""
    findings = tuple(
        _finding(claim, view, unit, relation)
        for view in _views(claim)
        for unit, relation in _stated(claim)
    )
    nominal = _nominal(claim, 1), _nominal(claim, int(claim.rounds))
    basic = None
    if claim.epsilon is not None:
        basic = basic_composition(claim.epsilon, claim.delta, claim.rounds)
    words = _words(claim, findings, nominal)
    return PrivacyVerdict(claim, findings, *nominal, basic, findings[0].holds, words)


def _holds(claimed: float | None, proved: float, lower: float) -> bool | None:
    if claimed is None:
        return None
    if proved <= claimed:
        return True
    return False if lower > claimed else None


def _views(claim: PrivacyClaim) -> list[str]:
    if claim.level == PER_RECORD:  # the noise is inside the training: every view has all of it
        return [RELEASED]
    return [SERVER, AFTER_SUM] if claim.secure_aggregation else [SERVER]


def _stated(claim: PrivacyClaim) -> list[tuple[str, Relation]]:
    """(unit, relation); a record is covered by replacing the update it is part of."""
    if claim.level == PER_RECORD:
        stated = [(RECORD, SAMPLINGS[claim.sampling])]
        if claim.sampling == POISSON and claim.sample_rate == 1:  # nothing sampled: both are proved
            stated.append((RECORD, REPLACE_ONE))
        return stated
    return [(HOSPITAL, ADD_REMOVE), (HOSPITAL, REPLACE_ONE), (RECORD, REPLACE_ONE)]


def _finding(claim: PrivacyClaim, view: str, unit: str, relation: Relation) -> Finding:
    share = math.sqrt(claim.in_sum) if view == AFTER_SUM else 1.0
    factor = 2.0 if relation == REPLACE_ONE else 1.0
    sigma, delta = (claim.noise * share if claim.noise_added else 0.0), float(claim.delta)
    all_rounds = claim.spent(sigma, int(claim.rounds))
    event_unit = next(iter(all_rounds)).unit  # a record is covered by its update's event
    total = compose_epsilon(all_rounds, relation, event_unit, delta)
    if claim.level == PER_RECORD and claim.sampling == SHUFFLED:
        passes = claim.passes(int(claim.rounds))
        lower = shuffled_lower_epsilon(sigma / float(claim.clip_norm), passes, delta)
    else:
        lower = lower_epsilon(all_rounds, relation, event_unit, delta)
    lower = min(lower, total.epsilon)
    claimed = None if claim.epsilon is None else float(claim.epsilon)
    return Finding(
        view=view,
        unit=unit,
        relation=relation,
        sensitivity=factor * float(claim.clip_norm),
        epsilon_round=compose_epsilon(claim.spent(sigma, 1), relation, event_unit, delta).epsilon,
        epsilon_total=total.epsilon,
        epsilon_lower=lower,
        method=total.method,
        sigma_needed=_sigma_needed(claim, relation, factor, share),
        holds=_holds(claimed, total.epsilon, lower),
    )


def _nominal(claim: PrivacyClaim, rounds: int) -> float:
    """ε if one unit could move the release by no more than the claimed sensitivity."""
    scaled = claim.noise * float(claim.clip_norm) / claim.claimed_sensitivity
    counts, (_, relation) = claim.spent(scaled, rounds), _stated(claim)[0]
    unit = next(iter(counts)).unit
    return compose_epsilon(counts, relation, unit, float(claim.delta)).epsilon


def _sigma_needed(
    claim: PrivacyClaim, relation: Relation, factor: float, share: float
) -> float | None:
    """σ per contribution for which the claimed ε is true in total."""
    if claim.epsilon is None:
        return None
    clip = float(claim.clip_norm)
    if claim.level == UPDATE:
        return gaussian_sigma(claim.epsilon, factor * clip, claim.rounds, claim.delta) / share
    if claim.sampling == SHUFFLED:
        passes = claim.passes(int(claim.rounds)).most
        return gaussian_sigma(claim.epsilon, clip, passes, claim.delta)
    steps = int(claim.rounds) * int(claim.steps)
    multiplier, _ = calibrate_noise_multiplier(
        claim.epsilon, claim.delta, claim.sample_rate, steps, relation=relation
    )
    return multiplier * clip


def _words(claim: PrivacyClaim, findings: tuple[Finding, ...], nominal: tuple[float, float]) -> str:
    """The verdict, for a reviewer to quote."""
    holds = findings[0].holds
    first, unit = findings[0], "record" if claim.level == PER_RECORD else "hospital's whole update"
    over = f"{claim.rounds} rounds" if claim.rounds != 1 else "one round"
    if not claim.noise_added:
        said = f"The claim {_SAID[holds]}."
        return (
            f"No noise is added: clipping at {claim.clip_norm:g} alone guarantees nothing "
            "(ε = ∞), for anybody, in any view. "
            + ("There is no guarantee to state." if claim.epsilon is None else said)
        )
    parts = []
    if claim.epsilon is not None:
        parts.append(
            f"The claim of ε = {claim.epsilon:g} at δ = {claim.delta:g} {_SAID[holds]} for "
            f"{_MOVES[first.relation]} one {unit} over {over} ({first.view})."
        )
        parts += [
            f"It {_SAID[finding.holds]} for {_MOVES[finding.relation]} one: ε is then "
            f"{shown(finding.epsilon_total)} in total."
            for finding in findings[1:]
            if (finding.view, finding.unit) == (first.view, first.unit) and finding.holds != holds
        ]
    once, total = shown(first.epsilon_round), shown(first.epsilon_total)
    if tight := first.epsilon_lower >= _TIGHT * first.epsilon_total:
        found = f"{once} in one round and {total} in total"
    else:
        found = f"at most {once} in one round, "
        found += f"between {shown(first.epsilon_lower)} and {total} in total"
    parts.append(f"True ε: {found} ({first.view}, at δ = {claim.delta:g}).")
    if claim.claimed_sensitivity < float(claim.clip_norm) * (1 - 1e-12):
        parts.append(
            f"The noise was computed for a sensitivity of {claim.claimed_sensitivity:g}, but "
            f"clipping at {claim.clip_norm:g} lets one {unit} move by {claim.clip_norm:g}; were "
            f"{claim.claimed_sensitivity:g} true, ε would be {shown(nominal[1])} in total."
        )
    elif claim.epsilon is not None and holds is False and claim.rounds != 1:
        parts.append("The budget of one release is spent again in every round.")
    parts += [
        f"If only a sum is seen in which {claim.in_sum} hospitals' noise is honest, "
        f"{shown(finding.epsilon_total)} in total: by trust in the protocol and in them."
        for finding in findings
        if finding.view == AFTER_SUM and finding.relation == ADD_REMOVE
    ]
    if claim.epsilon is not None and first.sigma_needed is not None:
        parts.append(
            f"ε = {claim.epsilon:g} in total {'needs' if tight else 'is proved for'} "
            f"σ = {first.sigma_needed:.3g} "
            f"({'has' if holds else 'instead of'} {claim.noise:.3g})."
        )
    if claim.level == UPDATE:
        parts.append(
            "No record is clipped: a record is protected as part of its hospital's update."
        )
    else:
        parts.append("A whole hospital is not protected.")
    return " ".join(parts)


def shown(epsilon: float) -> str:
    """Four digits for a reader: 5.61, 2759, 2.1e+08, ∞."""
    if math.isinf(epsilon):
        return "∞"
    return f"{epsilon:,.0f}" if 1000 <= epsilon < 1e6 else f"{epsilon:.3g}"
