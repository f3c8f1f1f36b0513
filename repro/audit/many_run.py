"""The many-run audit: independent runs with and without one canary, told apart by a threshold.

Every step draws every record, so the claim about ``steps`` steps is exactly Gaussian DP with
μ = √steps / σ and the test is near tight: it sees wrong noise and wrong clipping. How records are
sampled it does not see; that is what ``one_run`` is for. Of a second-order run every release is
in it: mean, second moments and all steps, which is the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from repro.accounting.gaussian import epsilon_of_mu
from repro.audit import bounds
from repro.audit.canaries import LENGTH, SIZE, OneCanary, Trial, linear_model, record_loss
from repro.audit.claim import AuditedClaim, full_batch_mu
from repro.audit.controls import Actual, Progress
from repro.audit.second_order import second_order_trial
from repro.audit.shared_noise import shared_trial
from repro.privacy.gate import check_engine
from repro.privacy.mechanisms import ClipAndNoiseUpdate
from repro.privacy.step import clipped_noisy_sum
from repro.randomness import RootSeed

MOST_STEPS = 12
_WANTED_MU = 1.5  # about where a test of a few thousand runs says most
_LARGEST_MU = 2.0
_PILOT = 4  # one run in so many more chooses the thresholds and is not counted


@dataclass(frozen=True)
class ManyRun:
    """What was claimed about the audited steps, and the bounds found. ε at the claim's δ."""

    trials: int  # counted runs with the canary, and as many without
    steps: int  # each drawing every record
    part: float  # of the canary on the coordinate looked at
    confidence: float  # of all bounds together
    claimed_epsilon: float  # of these steps, exact
    claimed_mu: float
    epsilon: float  # lower bound, no assumption (Clopper–Pearson)
    mu: float  # lower bound, of the whole canary; of a Gaussian mechanism
    gaussian_epsilon: float  # the same as an ε; a bound only if the mechanism is Gaussian

    @property
    def exceeded(self) -> bool:
        """Is the claim refuted? It is Gaussian DP exactly, so a larger μ refutes it too."""
        return self.epsilon > self.claimed_epsilon or self.mu > self.claimed_mu


def audited_steps(claim: AuditedClaim) -> int:
    """As many steps as bring μ to where the test says most; at most those of the run.

    All of a second-order run: statistics and steps are one budget.
    """
    if claim.second_order:
        return claim.steps
    wanted = round((_WANTED_MU * claim.noise_multiplier) ** 2)
    return max(1, min(wanted, MOST_STEPS, claim.steps))


def many_run(
    claim: AuditedClaim,
    actual: Actual,
    *,
    trials: int,
    confidence: float,
    seed: RootSeed,
    progress: Progress = lambda done: None,
) -> ManyRun:
    """Audit ``actual`` against ``claim``: ``trials`` counted runs each way."""
    steps = audited_steps(claim)
    claimed_mu = full_batch_mu(claim, steps)
    part = 1.0 if claim.second_order else min(1.0, _LARGEST_MU / claimed_mu)
    run = _trial(claim, actual, steps, part)
    pilot = max(20, trials // _PILOT)
    scores = {
        (stage, present): _scores(run, count, present, seed, stage, progress)
        for stage, count in (("pilot", pilot), ("counted", trials))
        for present in (True, False)
    }
    first, counted = ((scores[s, True], scores[s, False]) for s in ("pilot", "counted"))
    epsilon, mu = bounds.epsilon_and_mu(first, counted, claim.delta, confidence)
    mu /= part
    return ManyRun(
        trials=trials,
        steps=steps,
        part=part,
        confidence=confidence,
        claimed_epsilon=epsilon_of_mu(claimed_mu, claim.delta),
        claimed_mu=claimed_mu,
        epsilon=epsilon,
        mu=mu,
        gaussian_epsilon=epsilon_of_mu(mu, claim.delta),
    )


def _scores(
    run: Trial, count: int, present: bool, seed: RootSeed, stage: str, progress: Progress
) -> np.ndarray:
    found = np.empty(count)
    for trial in range(count):
        own = RootSeed(seed.derive_bytes("audit trial", stage, int(present), trial), seed.source)
        found[trial] = run(own, present)
        progress(1)
    return found


def _trial(claim: AuditedClaim, actual: Actual, steps: int, part: float) -> Trial:
    if claim.sharing is None:
        make = _record_trial if claim.unit == "record" else _update_trial
        return make(claim, actual, steps, part)
    if claim.second_order:
        return second_order_trial(claim, claim.sharing, actual)
    return shared_trial(claim, claim.sharing, actual, steps, part)


def _record_trial(claim: AuditedClaim, actual: Actual, steps: int, part: float) -> Trial:
    """The sum over steps of the canary's coordinate, through the private step itself."""
    model = linear_model(inputs=SIZE, outputs=1)
    data = OneCanary.make(claim.clip_norm, part, RootSeed.from_user(0))
    batches = {present: data.records(present) for present in (True, False)}
    # Tried once, as every private run does, and not before each of thousands of trials.
    tried = batches[True]
    engine = check_engine(model, record_loss, tried, torch.ones(len(tried), 1))

    def run(seed: RootSeed, present: bool) -> float:
        inputs = batches[present]
        total = 0.0
        for step in range(steps):
            noisy = clipped_noisy_sum(
                model,
                record_loss,
                inputs,
                torch.ones(len(inputs), 1),
                clip_norm=actual.clip * claim.clip_norm,
                noise_multiplier=actual.noise / actual.clip,
                seed=seed.derive("dp-noise", claim.hospital),
                step=step,
                engine=engine,
            )
            total += float(noisy.flat[0])
        return total

    return run


def _update_trial(claim: AuditedClaim, actual: Actual, steps: int, part: float) -> Trial:
    """The sum over rounds of the canary's coordinate, through the update mechanism itself."""
    mechanism = ClipAndNoiseUpdate(actual.clip * claim.clip_norm, actual.noise * claim.clip_norm)
    canary = OneCanary.make(claim.clip_norm, part, RootSeed.from_user(0)).canary[0]
    updates = {True: canary, False: torch.zeros_like(canary)}
    assert LENGTH > 1  # the update is clipped

    def run(seed: RootSeed, present: bool) -> float:
        total = 0.0
        for round_number in range(1, steps + 1):
            own = updates[present]
            sent, _ = mechanism(own, seed=seed, party=claim.hospital, round=round_number)
            total += float(sent[0])
        return total

    return run
