"""Audits of what ``make_private`` offers beside plain DP-SGD: adaptive clipping and banded noise.

Both through ``DrawnGradients``, which every planned training takes its sums from, at full batches:
what the ledger states for the audited steps is then Gaussian DP exactly (μ = √steps ÷ z, and
√⌈T ÷ b⌉ ÷ σ for bands), and the attack's score is the log likelihood ratio of all that is released,
so the bound found is near what is stated. One control each, which the audit has to refute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import toeplitz
from torch import Tensor
from torch.utils.data import TensorDataset

from repro.accounting.gaussian import epsilon_of_mu
from repro.audit import bounds
from repro.audit.canaries import (
    LENGTH,
    OneCanary,
    OrthogonalCanaries,
    linear_model,
    record_loss,
)
from repro.checks import check_choice, check_count, check_fraction
from repro.privacy.adaptive_clipping import AdaptiveClipping
from repro.privacy.banded_noise import BandedNoise, banded_coefficients
from repro.privacy.clipping import Clipping
from repro.privacy.drawn_gradients import DrawnGradients
from repro.privacy.gate import check_engine
from repro.privacy.private_step import StepPlan
from repro.privacy.ranks import Ranks
from repro.privacy.records import Records
from repro.privacy.sampling import PoissonSampler
from repro.randomness import RootSeed

#: Option -> what its control gets wrong.
OPTIONS = {
    "adaptive_clipping": "the count that the clip norm follows is released without noise",
    "bands": "the noise of a step is not raised to cover all bands that a record is in",
}
DELTA = 1e-5
_ADAPTIVE_STEPS, _ADAPTIVE_NOISE = 2, 1.0
_BANDS, _STEPS, _BANDED_NOISE = 8, 16, 1.0
_QUANTILE, _RATE = 0.5, 0.2
_PILOT = 4  # one score in so many more chooses the thresholds and is not counted
_CANARIES = 10  # of the one run, for every trial asked for
_FAR = 1e6  # clip norms: the canary is clipped however far the clip norm has moved

Scores = tuple[np.ndarray, np.ndarray]  # with the canary, without


@dataclass(frozen=True)
class OptionAudit:
    """What is stated for the audited steps, and the bounds from below that were found, at δ 1e-5.

    counted: scores each way. epsilon: no assumption for adaptive clipping; for bands each canary
    of the one run counts as a trial of its own, as it is where noise is independent.
    """

    option: str
    control: bool
    counted: int
    confidence: float
    claimed_epsilon: float
    claimed_mu: float
    epsilon: float
    mu: float

    @property
    def exceeded(self) -> bool:
        return self.epsilon > self.claimed_epsilon or self.mu > self.claimed_mu

    @property
    def as_expected(self) -> bool:
        return self.exceeded == self.control


def audit_option(
    option: str, *, control: bool = False, trials: int, confidence: float, seed: int = 0
) -> OptionAudit:
    """Attack one option of ``OPTIONS``, or its control.

    trials: counted runs each way, 100 at least; ten times as many canaries of one run for bands,
        which cost less. An honest option is refuted with probability at
    most 1 − ``confidence``.
    """
    check_choice("option", option, tuple(OPTIONS))
    trials = check_count("trials", trials, least=100)
    confidence = check_fraction("confidence", confidence, zero=False)
    whole = RootSeed.from_user(seed)
    root = RootSeed(whole.derive_bytes("option audit", option, int(control)), whole.source)
    if option == "adaptive_clipping":
        squares, scores = _ADAPTIVE_STEPS / _ADAPTIVE_NOISE**2, _adaptive_scores(control, root)
    else:
        squares, scores = _STEPS / _BANDS / _BANDED_NOISE**2, _banded_scores(control, root)
    mu = math.sqrt(squares)
    pilot, counted = scores(max(50, trials // _PILOT), "pilot"), scores(trials, "counted")
    epsilon, found = bounds.epsilon_and_mu(pilot, counted, DELTA, confidence)
    return OptionAudit(
        option,
        control,
        min(map(len, counted)),
        confidence,
        epsilon_of_mu(mu, DELTA),
        mu,
        epsilon,
        found,
    )


def _source(
    inputs: Tensor, targets: Tensor, sampler: PoissonSampler, banded: BandedNoise, outputs: int
) -> Callable[[RootSeed], DrawnGradients]:
    """Sums of these records, drawn as a planned training draws them, for any seed."""
    model = linear_model(inputs.shape[1], outputs)
    records = Records(TensorDataset(inputs, targets), torch.device("cpu"))
    engine = check_engine(model, record_loss, inputs[:16], targets[:16])
    options = {"engine": engine, "chunk_size": None}
    plan = StepPlan(sampler, Clipping(1.0), noise_multiplier=1.0)  # each sum says its own
    return lambda seed: DrawnGradients(
        model, records, record_loss, plan, seed, banded, options, Ranks()
    )


def _adaptive_scores(control: bool, root: RootSeed) -> Callable[[int, str], Scores]:
    """Of independent runs, each with the canary or without.

    The canary adds C to one coordinate of a step's sum and takes ½ from the count. Both are seen:
    the next clip norm is public, and says what the noisy count was.
    """
    adaptive = AdaptiveClipping(_QUANTILE, _RATE, count_noise=0.6 * _ADAPTIVE_NOISE)
    data = OneCanary.make(_FAR, 1.0, RootSeed.from_user(0))
    sources = {}
    for present in (True, False):
        inputs = data.records(present)
        inputs = torch.where(inputs.abs() < LENGTH * _FAR, 0.0, inputs)  # the others: nothing
        sampler, none = PoissonSampler(len(inputs), 1.0), BandedNoise(1, _ADAPTIVE_STEPS)
        sources[present] = _source(inputs, torch.ones(len(inputs), 1), sampler, none, 1)
    batch = 4.0
    of_sum, of_count = adaptive.noises(_ADAPTIVE_NOISE, batch)

    def score(seed: RootSeed, present: bool) -> float:
        source, clip_norm, total = sources[present](seed), 1.0, 0.0
        for step in range(_ADAPTIVE_STEPS):
            noisy = source.noisy_sum(step, clip_norm=clip_norm, noise_multiplier=of_sum)
            following = adaptive.next_clip_norm(
                clip_norm,
                noisy,
                count_noise=1e-9 if control else of_count,
                expected_batch=batch,
                seed=seed,
                step=step,
            )
            count = batch * (_QUANTILE - 0.5 - math.log(following / clip_norm) / _RATE)
            total += float(noisy.flat[0]) / clip_norm / of_sum**2 - count / 2 / of_count**2
            clip_norm = following
        return total

    def scores(trials: int, stage: str) -> Scores:
        def run(trial: int, present: bool) -> float:
            own = root.derive_bytes("option trial", stage, int(present), trial)
            return score(RootSeed(own, root.source), present)

        with_canary, without = ([run(t, p) for t in range(trials)] for p in (True, False))
        return np.array(with_canary), np.array(without)

    return scores


def _banded_scores(control: bool, root: RootSeed) -> Callable[[int, str], Scores]:
    """Of the canaries of one run, each with a coordinate of its own, zeroed out or not.

    The best statistic on x = g + C⁻¹ z is uᵀ CᵀC x, u the steps that the canary's band is drawn
    in: C x has independent noise of deviation σζ in every row.
    """
    column = np.zeros(_STEPS)
    column[:_BANDS] = 1, *banded_coefficients(_BANDS, _STEPS)
    matrix = np.tril(toeplitz(column)) / np.linalg.norm(column)

    def scores(trials: int, stage: str) -> Scores:
        seed = RootSeed(root.derive_bytes("option trial", stage), root.source)
        layout = OrthogonalCanaries(math.isqrt(2 * _CANARIES * trials) + 1, 1.0)
        included = seed.numpy_generator("audit inclusion").random(layout.count) < 0.5
        inputs, targets = layout.records(np.arange(layout.count))
        inputs *= torch.from_numpy(included)[:, None]
        banded = BandedNoise(_BANDS, _STEPS)
        sampler = PoissonSampler(layout.count, 1.0, _BANDS)
        source = _source(inputs, targets, sampler, banded, layout.side)(seed)
        noise = _BANDED_NOISE / banded.fresh if control else _BANDED_NOISE
        seen = torch.stack(
            [
                source.noisy_sum(step, clip_norm=1.0, noise_multiplier=noise).flat.double()
                for step in range(_STEPS)
            ]
        ).numpy()
        band = np.arange(layout.count) % _BANDS
        joins = np.arange(_STEPS)[:, None] % _BANDS == band
        found = (joins * (matrix.T @ matrix @ seen)).sum(axis=0)
        return found[included], found[~included]

    return scores
