"""The discrete Gaussian, sampled exactly with integers: opt-in, no floating point is trusted.

Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), Algorithms 1–3, on arrays: no floating-point
number decides anything, so the output has exactly the stated distribution (given uniform bits).
The deviation is σ = 2^k grid steps; taking the paper's free parameter t as σ itself keeps every
fraction's denominator a power of two and every number below 2⁶³.

Each flat parameter index has its own Philox stream (counter: index, draw number), so the noise
of a parameter does not depend on chunks or on how often its neighbours were rejected.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from repro.checks import check_count, check_word64
from repro.errors import InputError
from repro.privacy.clipped_statistic import SLACK, clipped_vectors
from repro.randomness import philox4x32
from repro.shapes import Float, Int

LOG2_SIGMA = 20  # the grid step is σ / 2²⁰
SMOOTHING = 2.0  # r, in grid steps: what the proof takes from the noise, 4e-12 of its variance
_SMALLEST_MULTIPLIER = 1e-6
_AT_ONCE = 1 << 16


def discrete_gaussian(
    count: int, *, seed: int, step: int, start: int = 0, log2_sigma: int = LOG2_SIGMA
) -> np.ndarray:
    """Integers (count,), int64: N_ℤ(0, σ²) with σ = 2^log2_sigma, Pr[x] ∝ exp(−x² / 2σ²).

    start: flat index of the first; seed, step: 0 … 2⁶⁴ − 1; log2_sigma: 0 … 22.
    """
    seed, step = check_word64("seed", seed), check_word64("step", step)
    log2_sigma = check_count("log2_sigma", log2_sigma, least=0)
    if log2_sigma > 22:
        raise InputError("log2_sigma", log2_sigma, "at most 22: (60 σ)² must stay below 2^63")
    # Its own key, unrelated to the continuous noise's at any step.
    message = b"discrete gaussian" + seed.to_bytes(8, "little") + step.to_bytes(8, "little")
    key = int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")
    pieces = [
        _sample(_Streams(np.arange(first, min(first + _AT_ONCE, start + count)), key), log2_sigma)
        for first in range(start, start + count, _AT_ONCE)
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)


class _Streams:
    """One stream of 64-bit words per index; ``lanes`` says whose next word is wanted."""

    def __init__(self, index: np.ndarray, key: int) -> None:
        self._index = index.astype(np.int64)
        self._drawn = np.zeros(len(index), dtype=np.int64)
        self._key = (key & 0xFFFFFFFF, key >> 32)

    def __len__(self) -> int:
        return len(self._index)

    def bits(self, lanes: np.ndarray, count: int) -> np.ndarray:
        """Uniform integers in [0, 2^count), count ≤ 62, int64."""
        index, drawn = self._index[lanes], self._drawn[lanes]
        self._drawn[lanes] += 1
        counter = (index & 0xFFFFFFFF, index >> 32, drawn, np.zeros_like(drawn))
        low, high, _, _ = philox4x32(counter, self._key)
        return ((high & 0x3FFFFFFF) << 32 | low) & ((1 << count) - 1)

    def below(self, lanes: np.ndarray, limit: int) -> np.ndarray:
        """Uniform integers in [0, limit), by rejection, limit ≤ 2¹⁶."""
        result = np.zeros(len(lanes), dtype=np.int64)
        waiting = np.arange(len(lanes))
        accepted_below = (1 << 62) // limit * limit
        while len(waiting):
            words = self.bits(lanes[waiting], 62)
            good = words < accepted_below
            result[waiting[good]] = words[good] % limit
            waiting = waiting[~good]
        return result


def _sample(streams: _Streams, log2_sigma: int) -> np.ndarray:
    """Algorithm 3 with t = σ: accept Y ~ Lap_ℤ(σ) with probability exp(−(|Y| − σ)² / 2σ²)."""
    sigma = 1 << log2_sigma
    result = np.zeros(len(streams), dtype=np.int64)
    waiting = np.arange(len(streams))
    while len(waiting):
        candidates = _discrete_laplace(streams, waiting, log2_sigma)
        distance = np.abs(candidates) - sigma
        accepted = _bernoulli_exp(streams, waiting, distance**2, 2 * log2_sigma + 1)
        result[waiting[accepted]] = candidates[accepted]
        waiting = waiting[~accepted]
    return result


def _discrete_laplace(streams: _Streams, lanes: np.ndarray, log2_scale: int) -> np.ndarray:
    """Algorithm 2 with s = 1, t = 2^log2_scale: Pr[y] ∝ exp(−|y| / t)."""
    result = np.zeros(len(lanes), dtype=np.int64)
    open_ = np.ones(len(lanes), dtype=bool)
    while open_.any():
        waiting = np.flatnonzero(open_)
        remainder = streams.bits(lanes[waiting], log2_scale)
        kept = _bernoulli_exp(streams, lanes[waiting], remainder, log2_scale)
        waiting, remainder = waiting[kept], remainder[kept]
        magnitude = remainder + (_run_of_exp_minus_one(streams, lanes[waiting]) << log2_scale)
        negative = streams.bits(lanes[waiting], 1) == 1
        good = ~(negative & (magnitude == 0))  # else zero would count twice
        result[waiting[good]] = np.where(negative, -magnitude, magnitude)[good]
        open_[waiting[good]] = False
    return result


def _run_of_exp_minus_one(streams: _Streams, lanes: np.ndarray) -> np.ndarray:
    """How many Bernoulli(e⁻¹) succeed before the first failure."""
    count = np.zeros(len(lanes), dtype=np.int64)
    running = np.arange(len(lanes))
    while len(running):
        ones = np.ones(len(running), dtype=np.int64)
        running = running[_bernoulli_exp_below_one(streams, lanes[running], ones, 0)]
        count[running] += 1
    return count


def _bernoulli_exp(
    streams: _Streams, lanes: np.ndarray, numerator: np.ndarray, log2_denominator: int
) -> np.ndarray:
    """Algorithm 1: True with probability exp(−numerator / 2^log2_denominator), bool."""
    whole = numerator >> log2_denominator
    alive = np.ones(len(lanes), dtype=bool)
    while True:  # e^(−⌊γ⌋), one factor e⁻¹ at a time
        running = np.flatnonzero(alive & (whole > 0))
        if not len(running):
            break
        ones = np.ones(len(running), dtype=np.int64)
        alive[running] = _bernoulli_exp_below_one(streams, lanes[running], ones, 0)
        whole[running] -= 1
    rest = numerator & ((1 << log2_denominator) - 1)
    running = np.flatnonzero(alive)
    alive[running] = _bernoulli_exp_below_one(
        streams, lanes[running], rest[running], log2_denominator
    )
    return alive


def _bernoulli_exp_below_one(
    streams: _Streams, lanes: np.ndarray, numerator: np.ndarray, log2_denominator: int
) -> np.ndarray:
    """The same for a fraction γ ≤ 1: the first k with Bernoulli(γ / k) false is odd."""
    odd = np.zeros(len(lanes), dtype=bool)
    running, k = np.arange(len(lanes)), 1
    while len(running):
        mine = lanes[running]
        # Bernoulli(γ / k) = Bernoulli(γ) and Bernoulli(1 / k), each exact.
        true = streams.bits(mine, log2_denominator) < numerator[running]
        true &= streams.below(mine, k) == 0
        odd[running[~true]] = k % 2 == 1
        running, k = running[true], k + 1
    return odd


def grid_step(noise_multiplier: float, clip_norm: float, size: int) -> float:
    """h with σ · (C(1 + ``SLACK``) + h√P/2) = h · √(2⁴⁰ − r²): the noise covers the rounding.

    In the brackets is the most that one record adds to a sum of rounded records, in L2: rounding
    to nearest moves each of its P coordinates by at most h/2, approached where every one lies just
    beyond the middle of two grid points, and the sum of rounded records is exact.
    Solved: h = σC(1 + ``SLACK``) / (√(2⁴⁰ − r²) − σ√P/2). 0 for σ = 0. Raises InputError where
    rounding would take half the noise, and for σ below 1e-6, whose sums could leave 63 bits.
    """
    if noise_multiplier == 0:
        return 0.0
    if noise_multiplier < _SMALLEST_MULTIPLIER:
        raise InputError(
            "noise_multiplier", noise_multiplier, f"0 or at least {_SMALLEST_MULTIPLIER:g}"
        )
    deviation = math.sqrt(4**LOG2_SIGMA - SMOOTHING**2)
    slack = noise_multiplier * math.sqrt(size) / 2 / deviation
    if slack >= 0.5:
        raise InputError(
            "noise_multiplier",
            noise_multiplier,
            f"less than {noise_multiplier * 0.5 / slack:.4g} for discrete noise on "
            f"{size} parameters: its grid would be too coarse",
        )
    return noise_multiplier * clip_norm * (1 + SLACK) / (1 - slack) / deviation


def record_on_grid(
    record: Float[Tensor, " size"], clip_norm: float, grid: float
) -> Int[Tensor, " size"]:
    """One record's clipped gradient as a number of grid steps a coordinate, int64.

    Clipped once more in float64: an engine in single precision clips to C(1 + 1e-5) only.
    """
    exact = clipped_vectors(record.unsqueeze(0), clip_norm)[0]
    # A quotient is off by 2⁻⁵³ of itself, all of them by 2⁻⁵³·C/h in L2: covered by ``SLACK``.
    return exact.div_(grid).round_().to(torch.int64)


def add_discrete_gaussian(
    total: Int[Tensor, " size"], *, grid: float, seed: int, step: int
) -> Float[Tensor, " size"]:
    """h · (total + N_ℤ(0, 2⁴⁰)), float64; total: Σ of ``record_on_grid``, in grid steps h.

    **Why σ is the multiplier that is accounted for.** N_ℤ(x, v) is, up to a factor e^±2ϑ of each
    probability, N(x, v − r²) passed through a randomised rounding (Peikert 2010, CRYPTO, Theorem
    3.1, for the integers; docs/shared-noise.md), with r = 2 steps and ϑ ≈ 2e^(−2π²r²) = 1e-34. So a
    release is post-processing of the *continuous* Gaussian mechanism of deviation h√(2⁴⁰ − r²), σ
    times the sensitivity on the grid (``grid_step``), and all that is proved of that holds,
    subsampled and composed, with ε larger by 4ϑP a release: 2e-27 at five million parameters.
    """
    noise = torch.from_numpy(discrete_gaussian(total.numel(), seed=seed, step=step))
    # Conversions to floating point are post-processing of a grid point.
    return (total + noise.to(total.device)).double().mul_(grid)
