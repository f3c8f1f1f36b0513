"""Counter-keyed Gaussian noise: a function of (seed, step, flat parameter index), nothing else.

Block b of four normals of step s is Philox4x32-10 at counter (b low, b high, s low, s high)
under the 64-bit seed; parameter j takes lane j mod 4 of block ⌊j/4⌋. Whoever makes any part of
the noise, in any order, on any device and in any number of processes, makes the same bits of
integers, and floats that differ by rounding of log, sqrt and sin only.

Tails: Box–Muller on (w + ½) / 2³² reaches √(2 ln 2³³) = 6.76 σ. The exact Gaussian has
1.4e-11 of its mass beyond: a part in 7e10 of draws, the resolution of 32 bits.
Philox is statistical, not cryptographic: noise is as secret as its seed, so a private run takes
its seed from the operating system (``RootSeed.from_entropy``).
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from repro.checks import Number, check_not_negative, check_word64
from repro.randomness import philox4x32, philox4x32_blocks
from repro.shapes import Float, Int

LANES = 4
# 64 KB per array of words, so that the ten rounds stay in cache; and 32,000 numbers, below the
# 32,768 from which PyTorch starts threads of its own inside ours.
_BLOCKS_AT_ONCE = 8000


def noise_words(
    count: int, *, seed: int, step: int, start: int = 0, device: torch.device | str = "cpu"
) -> Int[Tensor, "blocks 4"]:
    """32-bit words behind parameters start … start + count − 1, as int64 (blocks, 4).

    ``start`` must be a multiple of 4; the last block is whole even if ``count`` is not.
    """
    first, blocks = start // LANES, -(-count // LANES)
    if torch.device(device).type == "cpu":
        return torch.from_numpy(philox4x32_blocks(first, blocks, step, _halves(seed)))
    index = torch.arange(first, first + blocks, dtype=torch.int64, device=device)
    step_low, step_high = (torch.full_like(index, word) for word in _halves(step))
    counter = (index & 0xFFFFFFFF, index >> 32, step_low, step_high)
    return torch.stack(philox4x32(counter, _halves(seed)), dim=1)


def normals_from_words(words: Int[Tensor, "blocks 4"]) -> Float[Tensor, "blocks 4"]:
    """Box–Muller (1958) on words (0, 1) and (2, 3): float64 standard normals."""
    uniform = words.double().add_(0.5).mul_(2.0**-32)
    radius = uniform[:, 0::2].log().mul_(-2).sqrt_()
    angle = uniform[:, 1::2].mul(2 * math.pi)
    normals = torch.empty_like(uniform)
    torch.mul(radius, angle.cos(), out=normals[:, 0::2])
    torch.mul(radius, angle.sin(), out=normals[:, 1::2])
    return normals


def gaussian_noise(
    count: int,
    *,
    std: Number,
    seed: int,
    step: int,
    start: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, " count"]:
    """N(0, std²) for parameters start … start + count − 1 of one step, shape (count,).

    start: flat index of the first; any value, so chunks of a model agree with the whole.
    seed, step: 0 … 2⁶⁴ − 1. std: at least 0; 0 gives zeros.
    """
    noise = torch.zeros(count, dtype=dtype, device=device)
    add_gaussian_noise(noise, std=std, seed=seed, step=step, start=start)
    return noise


def add_gaussian_noise(
    values: Float[Tensor, " count"], *, std: Number, seed: int, step: int, start: int = 0
) -> None:
    """Add the same noise to ``values`` in place, in pieces that fit the cache."""
    std = check_not_negative("std", std)
    seed, step = check_word64("seed", seed), check_word64("step", step)
    start = check_word64("start", start)
    if std == 0 or values.numel() == 0:
        return
    skip = start % LANES  # the first block may begin before ``start``
    size = _BLOCKS_AT_ONCE * LANES
    edges = [0, *range(min(size - skip, values.numel()), values.numel(), size), values.numel()]

    def add(piece: tuple[int, int]) -> None:
        begin, end = piece
        before = (start + begin) % LANES
        words = noise_words(
            end - begin + before,
            seed=seed,
            step=step,
            start=start + begin - before,
            device=values.device,
        )
        normals = normals_from_words(words).view(-1)[before : before + end - begin]
        values[begin:end].add_(normals.mul_(std).to(values.dtype))

    pieces = list(itertools.pairwise(edges))
    if len(pieces) < 4 or values.is_cuda:
        for piece in pieces:
            add(piece)
    else:  # NumPy and PyTorch let go of the interpreter while they compute
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(add, pieces))


def _halves(word: int) -> tuple[int, int]:
    return word & 0xFFFFFFFF, word >> 32
