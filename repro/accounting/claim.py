"""A published privacy claim: what a paper or a program says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from repro.accounting import checks
from repro.accounting.checks import ADD_REMOVE, HOSPITAL, REPLACE_ONE, ZERO_OUT, Number
from repro.accounting.events import (
    FixedBatchGaussianEvent,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PrivacyEvent,
)
from repro.accounting.gaussian import classical_sigma
from repro.accounting.shuffled import Passes
from repro.checks import plain
from repro.errors import InputError

UPDATE, PER_RECORD = "update", "record"
LEVELS = (UPDATE, PER_RECORD)
#: What says something of one level only. An update's noise is added after the training, whose steps
#: and sampling then amplify nothing; a record's is inside it, whoever sees the sum.
OF_LEVEL = {
    UPDATE: ("hospitals", "hospital_rate", "secure_aggregation", "honest"),
    PER_RECORD: ("steps", "sample_rate", "sampling"),
}

POISSON, FIXED, SHUFFLED = "poisson", "fixed", "shuffled"
#: How records come into a step → the relation it is proved for.
SAMPLINGS = {POISSON: ADD_REMOVE, FIXED: REPLACE_ONE, SHUFFLED: ZERO_OUT}


@dataclass(frozen=True, kw_only=True)
class PrivacyClaim:
    """What a paper or a program says of itself.

    clip_norm: largest L2 norm of what one unit contributes (level "update": a hospital's whole
    update; level "record": one record's gradient). sigma: noise deviation per coordinate, in the
    unit of clip_norm; or noise_multiplier: sigma ÷ clip_norm; or neither, and sigma is what the
    classical formula gives for ``epsilon``, ``delta`` and ``sensitivity``. sensitivity: what the
    noise was computed from (default: clip_norm). rounds: releases of a hospital's update, or
    rounds of ``steps`` record-level steps each. hospitals: in the federation; hospital_rate: share
    of them in a round; honest: share of those whose noise really is in the sum and unknown to
    the server. sampling, of level "record": how records come into a step, "poisson" (each with
    probability sample_rate), "fixed" (batches of a fixed size, drawn afresh without replacement)
    or "shuffled" (each record once in a pass of 1/sample_rate steps, at a random one of them: data
    loaders and random allocation). noise_added: False where the program is known to discard its
    noise. What belongs to the other level is refused where it is not the default.
    """

    clip_norm: Number
    delta: Number
    epsilon: Number | None = None
    sensitivity: Number | None = None
    sigma: Number | None = None
    noise_multiplier: Number | None = None
    rounds: Number = 1
    hospitals: Number = 1
    hospital_rate: Number = 1.0
    secure_aggregation: bool = False
    honest: Number = 1.0
    level: str = UPDATE
    sampling: str = POISSON
    sample_rate: Number = 1.0
    steps: Number = 1
    noise_added: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, plain(getattr(self, one.name)))
        checks.positive("clip_norm", self.clip_norm)
        checks.delta(self.delta)
        for field in ("epsilon", "sensitivity"):
            if getattr(self, field) is not None:
                checks.positive(field, getattr(self, field))
        for field in ("sigma", "noise_multiplier"):
            if getattr(self, field) is not None:
                checks.non_negative(field, getattr(self, field))
        if self.sigma is not None and self.noise_multiplier is not None:
            raise InputError("noise_multiplier", self.noise_multiplier, "sigma or this, not both")
        if self.sigma is None and self.noise_multiplier is None and self.epsilon is None:
            raise InputError("sigma", None, "one of sigma, noise_multiplier and epsilon")
        for field in ("rounds", "hospitals", "steps"):
            checks.count(field, getattr(self, field), least=1)
        checks.sample_rate(self.sample_rate)
        checks.one_of("level", self.level, LEVELS)
        checks.one_of("sampling", self.sampling, tuple(SAMPLINGS))
        changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        refuse_other_level(self.level, {name: getattr(self, name) for name in changed})
        for field in ("hospital_rate", "honest"):
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
        """Hospitals whose noise is in one sum, the honest ones; at least the one protected."""
        return max(1, math.floor(float(self.hospitals) * self.hospital_rate * self.honest + 1e-9))

    def event(self, sigma: float) -> PrivacyEvent:
        multiplier = sigma / float(self.clip_norm)
        if self.level == UPDATE:
            return GaussianEvent(multiplier, unit=HOSPITAL)
        if self.sampling == POISSON:
            return PoissonSampledGaussianEvent(multiplier, self.sample_rate)
        if self.sampling == FIXED:
            return FixedBatchGaussianEvent(multiplier, self.sample_rate)
        return GaussianEvent(multiplier)

    def spent(self, sigma: float, rounds: int) -> dict[PrivacyEvent, int]:
        """What is released of one unit in ``rounds``, as events an accountant has a proof for.

        Of a shuffled pass, one plain release a pass: given the order, which is independent of
        the data, the record is in one step of each, and δ(ε) is convex in the mixture over
        orders. What shuffling amplifies is not counted.
        """
        if self.level == UPDATE:
            return {self.event(sigma): rounds}
        if self.sampling == SHUFFLED:
            return {self.event(sigma): self.passes(rounds).most}
        return {self.event(sigma): rounds * int(self.steps)}

    def passes(self, rounds: int) -> Passes:
        return Passes.of(int(self.steps), float(self.sample_rate), rounds)


def refuse_other_level(level: str, given: Mapping[str, object]) -> None:
    """``InputError`` for the first of ``given`` (field → value) that belongs to the other level."""
    other = PER_RECORD if level == UPDATE else UPDATE
    for name in OF_LEVEL[other]:
        if name in given:
            raise InputError(
                name, given[name], f"nothing at level {level}: it belongs to level {other}"
            )
