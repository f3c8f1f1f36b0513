"""The Triton generator: Random123's integers, the PyTorch normals, indices beyond 2³¹."""

import pytest
import torch
import triton
import triton.language as tl

from repro.kernels.philox import NORMAL_TOLERANCE, normals, philox_words
from repro.privacy.noise import noise_words, normals_from_words

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Random123 `kat_vectors`, "philox4x32 10": counter, key, result.
KNOWN_ANSWERS = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
WORDS = ["s0", "s1", "k0", "k1"]


@triton.jit(do_not_specialize=["first", "s0", "s1", "k0", "k1"])
def _store_words(output, first, s0, s1, k0, k1, BLOCKS: tl.constexpr):
    index = tl.arange(0, BLOCKS)
    w0, w1, w2, w3 = philox_words(first + index.to(tl.int64), s0, s1, k0, k1)
    tl.store(output + 4 * index, w0.to(tl.int64))
    tl.store(output + 4 * index + 1, w1.to(tl.int64))
    tl.store(output + 4 * index + 2, w2.to(tl.int64))
    tl.store(output + 4 * index + 3, w3.to(tl.int64))


@triton.jit(do_not_specialize=["first", "s0", "s1", "k0", "k1"])
def _store_normals(output, first, s0, s1, k0, k1, BLOCKS: tl.constexpr):
    values = normals(first, s0, s1, k0, k1, BLOCKS)
    tl.store(output + tl.arange(0, 4 * BLOCKS), values)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    words = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    block = counter[0] + (counter[1] << 32)
    block -= 2**64 if block >= 2**63 else 0  # the same 64 bits, signed
    _store_words[(1,)](words, block, counter[2], counter[3], *key, BLOCKS=1)
    assert tuple(words.tolist()) == expected


@pytest.mark.parametrize("first", [0, 2**29 - 3, 2**31 + 5, 2**32 - 2, 2**40])
def test_words_and_normals_are_pytorchs(first):
    """Blocks across 2³¹ parameters (2²⁹ blocks) and across 2³² blocks."""
    seed, step = 0xFEDCBA9876543210, 0x123456789ABCDEF
    halves = (step & 0xFFFFFFFF, step >> 32, seed & 0xFFFFFFFF, seed >> 32)
    words = torch.zeros(64, 4, dtype=torch.int64, device=DEVICE)
    _store_words[(1,)](words, first, *halves, BLOCKS=64)
    expected = noise_words(256, seed=seed, step=step, start=4 * first)
    assert torch.equal(words.cpu(), expected)
    values = torch.zeros(256, dtype=torch.float32, device=DEVICE)
    _store_normals[(1,)](values, first, *halves, BLOCKS=64)
    difference = values.cpu().double() - normals_from_words(expected).flatten()
    assert float(difference.abs().max()) <= NORMAL_TOLERANCE
