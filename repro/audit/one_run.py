"""The one-run audit: many canaries in one whole run, each in it with probability one half.

Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846), algorithm 1, in the white-box setting: every
step is seen. The run is the arm's own schedule (rounds, steps, sample rate, noise) through
``DPSGDRun``, or ``SharedNoiseTrainer`` where noise is shared, so sampling, noise keys and the step
are all under test. No assumption is made on the mechanism, but the bound can't go beyond
``ceiling`` however much leaks.

Noise that is independent from coordinate to coordinate makes the canaries independent trials of
one whole run; under that assumption the same scores give the bound of a many-run test.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from repro.audit import bounds
from repro.audit.canaries import (
    CanaryScore,
    OrthogonalCanaries,
    linear_model,
    log_likelihood_ratio,
    record_loss,
)
from repro.audit.claim import AuditedClaim, Sharing
from repro.audit.controls import Actual, Progress
from repro.audit.second_order import WatchedSecondOrder
from repro.audit.shared_noise import shared_traces, watched_trainer
from repro.errors import InputError
from repro.privacy.dpsgd import DPSGDRun, DPSGDSettings
from repro.randomness import RootSeed

# Shares of the canaries guessed to be in, and guessed to be out; fixed before anything is seen.
# Many guesses at small δ, because few cannot reach far: the bound ends near log(βr / 2δm).
GUESSES = ((0.25, 0.25), (0.45, 0.45))
_PILOT = 5  # every fifth canary chooses the threshold of the test that takes them as independent


@dataclass(frozen=True)
class OneRun:
    """The best of several numbers of guesses, the confidence shared among them."""

    canaries: int
    guesses: int
    right: int
    steps: int
    confidence: float
    epsilon: float  # lower bound of the whole run's ε at the claim's δ; no assumption
    ceiling: float  # the bound had every guess been right
    independent_epsilon: float  # lower bound (Clopper–Pearson) if canaries are independent


def one_run(
    claim: AuditedClaim,
    actual: Actual,
    *,
    canaries: int,
    confidence: float,
    seed: RootSeed,
    progress: Progress = lambda done: None,
) -> OneRun:
    """Audit ``actual`` against ``claim`` with at most ``canaries`` canaries (rounded to a square).

    progress: told of each step. A hospital's single update can be in it or not, and is one canary
    a round only: refused.
    """
    if claim.unit != "record":
        raise InputError("unit", claim.unit, "record: a hospital has one update to be seen")
    layout = OrthogonalCanaries.at_most(canaries, claim.clip_norm)
    coins = seed.numpy_generator("audit inclusion").random(layout.count) < 0.5
    scores = np.zeros(layout.count)
    rate, noise = claim.sample_rate, claim.noise_multiplier
    for trace in _traces(claim, actual, layout, np.flatnonzero(coins), seed):
        scores += log_likelihood_ratio(trace / claim.clip_norm, noise, rate)
        progress(1)
    return _judge(scores, coins, claim, confidence)


def _traces(
    claim: AuditedClaim,
    actual: Actual,
    layout: OrthogonalCanaries,
    included: np.ndarray,
    seed: RootSeed,
) -> Iterator[np.ndarray]:
    """Every step's noisy sum (m,), float64, as the adversary of the claim sees it.

    SGD at rate ``expected_batch`` moves by just that.
    """
    if claim.sharing is not None:
        yield from _shared_traces(claim, claim.sharing, actual, layout, included, seed)
        return
    inputs, targets = layout.records(included)
    model = linear_model(layout.side, layout.side)
    # Rounded down: the rate never exceeds the one that the claim was made for.
    batch = max(1, int(claim.sample_rate * len(included) * (1 + 1e-12)))
    settings = DPSGDSettings(
        clip_norm=actual.clip * claim.clip_norm,
        noise_multiplier=actual.noise / actual.clip,
        expected_batch=batch,
        learning_rate=batch,
    )
    for round_number in range(1, claim.rounds + 1):
        run = DPSGDRun(
            settings,
            model,
            record_loss,
            inputs,
            targets,
            seed=seed,
            party=claim.hospital,
            round=round_number,
        )
        for _ in range(claim.steps_per_round):
            torch.nn.init.zeros_(model.weight)  # gradients don't depend on it; sums stay exact
            run.step()
            yield -model.weight.detach().double().flatten().numpy()


def _shared_traces(
    claim: AuditedClaim,
    sharing: Sharing,
    actual: Actual,
    layout: OrthogonalCanaries,
    included: np.ndarray,
    seed: RootSeed,
) -> Iterator[np.ndarray]:
    """Of a second-order arm only the steps: a part of what is stated, so the bound holds."""
    if sharing.second is None:
        model = CanaryScore(layout.side)
        parts = watched_trainer(claim, sharing, actual, model=model, seed=seed)
    else:
        sides = {"features": layout.side, "classes": layout.side}
        parts = WatchedSecondOrder(claim, sharing, actual, **sides, seed=seed).steps
    return shared_traces(*parts, claim.rounds, layout, included)


def _judge(scores: np.ndarray, coins: np.ndarray, claim: AuditedClaim, confidence: float) -> OneRun:
    count = len(scores)
    order = np.argsort(scores, kind="stable")
    half = 1 - (1 - confidence) / 2
    each = 1 - (1 - half) / len(GUESSES)
    alone = _as_independent(scores, coins, claim.delta, half)
    found = []
    for share_in, share_out in GUESSES:
        into, out = int(share_in * count), int(share_out * count)
        right = int(coins[order[count - into :]].sum()) + int((~coins[order[:out]]).sum())
        guesses = into + out
        found.append(
            OneRun(
                canaries=count,
                guesses=guesses,
                right=right,
                steps=claim.steps,
                confidence=confidence,
                epsilon=bounds.one_run_epsilon(count, guesses, right, claim.delta, each),
                ceiling=bounds.one_run_epsilon(count, guesses, guesses, claim.delta, each),
                independent_epsilon=alone,
            )
        )
    return max(found, key=lambda one: (one.epsilon, one.ceiling))


def _as_independent(
    scores: np.ndarray, coins: np.ndarray, delta: float, confidence: float
) -> float:
    pilot = np.arange(len(scores)) % _PILOT == 0
    threshold = bounds.best_threshold(scores[pilot & coins], scores[pilot & ~coins], delta)
    found = bounds.rates(scores[~pilot & coins], scores[~pilot & ~coins], threshold, confidence)
    return bounds.epsilon_from_rates(found, delta)
