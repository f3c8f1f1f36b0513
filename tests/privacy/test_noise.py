"""Noise: its integers, its distribution, and independence of how it is asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from repro.errors import InputError
from repro.privacy import noise as noise_module
from repro.privacy.noise import gaussian_noise, noise_words, normals_from_words
from repro.randomness import philox4x32

WORD64 = st.integers(0, 2**64 - 1)


@given(seed=WORD64, step=WORD64, block=st.integers(0, 2**60))
def test_words_are_philox_at_the_stated_counter(seed, step, block):
    """Key = seed, counter = (block, step), each split low word first; Python integers agree."""
    found = noise_words(4, seed=seed, step=step, start=4 * block)
    low, mask = (lambda word: word & 0xFFFFFFFF), 32
    counter = (low(block), block >> mask, low(step), step >> mask)
    assert found.tolist() == [list(philox4x32(counter, (low(seed), seed >> mask)))]


@given(seed=WORD64, step=WORD64, block=st.integers(0, 2**61))
def test_the_in_place_generator_is_the_generic_one(seed, step, block):
    """What CPUs use (NumPy, in place) against what other devices use (PyTorch)."""
    index = torch.arange(block, block + 5)
    words = [torch.full_like(index, word) for word in (step & 0xFFFFFFFF, step >> 32)]
    counter = (index & 0xFFFFFFFF, index >> 32, *words)
    generic = torch.stack(philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32)), dim=1)
    assert torch.equal(noise_words(20, seed=seed, step=step, start=4 * block), generic)


def test_counters_and_keys_never_coincide():
    """Neighbouring seeds, steps and blocks, and swapped halves, all give other words."""
    words = {
        tuple(noise_words(4, seed=seed, step=step, start=start)[0].tolist())
        for seed in (0, 1, 2**32)
        for step in (0, 1, 2**32)
        for start in (0, 4, 2**34)
    }
    assert len(words) == 27


@given(
    start=st.integers(0, 2**40),
    count=st.integers(0, 40),
    cut=st.integers(0, 40),
    at_once=st.sampled_from([1, 2, 3, 8000]),
)
def test_any_piece_of_the_noise_is_the_same_bits(start, count, cut, at_once):
    """Pieces from any start, made in blocks of any size, are slices of one sequence."""
    cut = min(cut, count)
    usual = noise_module._BLOCKS_AT_ONCE
    try:
        noise_module._BLOCKS_AT_ONCE = at_once
        pieces = [
            gaussian_noise(cut, std=2.0, seed=1, step=2, start=start),
            gaussian_noise(count - cut, std=2.0, seed=1, step=2, start=start + cut),
        ]
    finally:
        noise_module._BLOCKS_AT_ONCE = usual
    whole = gaussian_noise(count, std=2.0, seed=1, step=2, start=start)
    assert torch.equal(torch.cat(pieces), whole)


def test_large_counts_do_not_depend_on_the_internal_block():
    count = 4 * noise_module._BLOCKS_AT_ONCE + 5
    whole = gaussian_noise(count, std=1.0, seed=3, step=4)
    assert torch.equal(whole[-9:], gaussian_noise(9, std=1.0, seed=3, step=4, start=count - 9))


def test_it_is_gaussian():
    """Kolmogorov–Smirnov on 10⁶ draws, and variance, fourth moment and lanes' correlations.

    Each of the nine checks fails by chance with probability below 1e-6 (seed is fixed).
    """
    draws = gaussian_noise(1_000_000, std=3.0, seed=11, step=0, dtype=torch.float64).numpy() / 3.0
    assert stats.kstest(draws, "norm").pvalue > 1e-6
    n = len(draws)
    assert abs(draws.mean()) < 5 / np.sqrt(n)
    assert abs(draws.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((draws**4).mean() - 3) < 5 * np.sqrt(96 / n)
    lanes = draws.reshape(-1, 4)
    correlations = np.corrcoef(np.concatenate([lanes, lanes**2], axis=1).T) - np.eye(8)
    assert np.abs(correlations).max() < 6 / np.sqrt(n / 4)


def test_tails_reach_beyond_six_sigma():
    """The extreme words give 6.76 σ, and nothing infinite at either end."""
    extremes = torch.tensor([[0, 0, 0xFFFFFFFF, 0], [0, 1 << 31, 0xFFFFFFFF, 1 << 30]])
    normals = normals_from_words(extremes)
    assert torch.isfinite(normals).all()
    assert normals[0, 0] == pytest.approx(6.7637, abs=1e-3)
    assert normals[1, 0] == pytest.approx(-6.7637, abs=1e-3)


def test_no_noise_and_no_parameters():
    assert torch.equal(gaussian_noise(5, std=0.0, seed=0, step=0), torch.zeros(5))
    assert gaussian_noise(0, std=1.0, seed=0, step=0).shape == (0,)


@pytest.mark.parametrize("bad", [{"std": -1.0}, {"seed": 2**64}, {"step": -1}])
def test_bad_input_is_one_line(bad):
    with pytest.raises(InputError, match="got"):
        gaussian_noise(4, **{"std": 1.0, "seed": 0, "step": 0, **bad})
