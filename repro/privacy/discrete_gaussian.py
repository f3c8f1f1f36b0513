"""The discrete Gaussian, sampled exactly with integers: opt-in, for those who fear floats.

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

from repro.errors import InputError
from repro.privacy.validation import check_count, check_word64
from repro.random import philox4x32

LOG2_SIGMA = 20  # the grid step is σ / 2²⁰
_AT_ONCE = 1 << 16


def discrete_gaussian(
    count: int, *, seed: int, step: int, start: int = 0, log2_sigma: int = LOG2_SIGMA
) -> np.ndarray:
    """Integers (count,), int64: N_ℤ(0, σ²) with σ = 2^log2_sigma, Pr[x] ∝ exp(−x² / 2σ²).

    start: flat index of the first; seed, step: 0 … 2⁶⁴ − 1; log2_sigma: 0 … 22.
    """
    check_word64("seed", seed)
    check_word64("step", step)
    if check_count("log2_sigma", log2_sigma, least=0) > 22:
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
        result: np.ndarray = ((high & 0x3FFFFFFF) << 32 | low) & ((1 << count) - 1)
        return result

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


def sensitivity_on_grid(clip_norm: float, grid: float, size: int) -> float:
    """Largest L2 distance of two neighbouring sums after rounding to the grid: C + h√P.

    Rounding to nearest moves a coordinate by at most h/2, so each of the two sums by at most h√P/2
    in L2 (P coordinates), and both together by at most h√P; approached where every coordinate of
    one lies just below, and of the other just above, the middle between two grid points.
    """
    return clip_norm + grid * math.sqrt(size)


def grid_step(noise_multiplier: float, clip_norm: float, size: int) -> float:
    """h with σ · (C + h√P) = h · 2²⁰: the deviation covers what the rounding adds.

    Solved: h = σC / (2²⁰ − σ√P). Raises InputError where rounding would take half the noise.
    """
    slack = noise_multiplier * math.sqrt(size) / 2**LOG2_SIGMA
    if slack >= 0.5:
        raise InputError(
            "noise_multiplier",
            noise_multiplier,
            f"less than {noise_multiplier * 0.5 / slack:.4g} for discrete noise on "
            f"{size} parameters: its grid would be too coarse",
        )
    result: float = noise_multiplier * clip_norm / (1 - slack) / 2**LOG2_SIGMA
    return result


def add_discrete_gaussian(
    values: Tensor, *, noise_multiplier: float, clip_norm: float, seed: int, step: int
) -> None:
    """Round ``values`` (P,), a sum of sensitivity ``clip_norm``, to the grid; add noise, in place.

    The noise's deviation is σ times the sensitivity **after** rounding (``grid_step``), 0.2 % above
    σC at σ = 1 and 4.8 million parameters, so the multiplier is σ as it is accounted.
    Theorem 14 of the paper: the same concentrated privacy as the Gaussian with this multiplier.
    Its amplification by Poisson sampling is taken to be the Gaussian's as well.

    Not covered: rounding inside the sum, before it gets here. Adding B records one after the other
    in floats of unit roundoff u errs by at most (B − 1)·u·B·C in L2 (Higham 2002, section 4.2),
    twice that between neighbours: 0.2 % of C for 128 records in float32, 4e-12 in float64. Who
    wants discrete noise for its exactness takes float64 parameters, whose sums are float64.
    """
    grid = grid_step(noise_multiplier, clip_norm, values.numel())
    if grid == 0:
        return
    noise = torch.from_numpy(discrete_gaussian(values.numel(), seed=seed, step=step))
    # float64 holds the integers exactly; only the final conversion rounds, which is
    # post-processing of a grid point.
    steps = values.double().div_(grid).round_().add_(noise.to(values.device))
    values.copy_(steps.mul_(grid))
