"""The discrete Gaussian: exact probabilities, moments, and independence of chunks."""

import numpy as np
import pytest
import torch
from scipy import stats

from repro.errors import InputError
from repro.privacy import discrete_gaussian as module
from repro.privacy.discrete_gaussian import discrete_gaussian


@pytest.mark.parametrize("log2_sigma", [0, 1, 3])
def test_frequencies_are_the_stated_probabilities(log2_sigma):
    """χ² of 60,000 draws against exp(−x² / 2σ²), normalised; fails by chance below 1e-6."""
    draws = discrete_gaussian(60_000, seed=5, step=1, log2_sigma=log2_sigma)
    sigma = 2**log2_sigma
    support = np.arange(-12 * sigma, 12 * sigma + 1)
    weights = np.exp(-(support.astype(float) ** 2) / (2 * sigma**2))
    expected = weights / weights.sum() * len(draws)
    seen = np.array([(draws == x).sum() for x in support])
    assert seen.sum() == len(draws)
    common = expected >= 10
    expected = np.append(expected[common], expected[~common].sum())
    seen = np.append(seen[common], seen[~common].sum())
    statistic = ((seen - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(statistic, len(seen) - 1) > 1e-6


def test_on_the_fine_grid_it_is_gaussian():
    """Kolmogorov–Smirnov on 60,000 draws at σ = 2²⁰ steps; fails by chance below 1e-6."""
    draws = discrete_gaussian(60_000, seed=6, step=0) / 2.0**module.LOG2_SIGMA
    assert stats.kstest(draws, "norm").pvalue > 1e-6


def test_pieces_are_slices_of_one_sequence(monkeypatch):
    whole = discrete_gaussian(100, seed=1, step=2, start=2**33)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    pieces = [discrete_gaussian(50, seed=1, step=2, start=2**33 + i) for i in (0, 50)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert not np.array_equal(whole, discrete_gaussian(100, seed=1, step=3, start=2**33))
    assert not np.array_equal(whole, discrete_gaussian(100, seed=2, step=2, start=2**33))


@pytest.mark.parametrize(
    ("numerator", "log2_denominator"), [(1, 0), (3, 2), (1, 3), (11, 2), (0, 4)]
)
def test_bernoulli_exp(numerator, log2_denominator):
    """Frequency of exp(−γ) over 40,000 draws, within 5 standard errors (chance 6e-7)."""
    n = 40_000
    streams = module._Streams(np.arange(n), key=9)
    found = module._bernoulli_exp(
        streams, np.arange(n), np.full(n, numerator), log2_denominator
    ).mean()
    p = np.exp(-numerator / 2**log2_denominator)
    assert abs(found - p) <= 5 * np.sqrt(p * (1 - p) / n)


def test_uniform_below():
    """χ² of 30,000 draws in [0, 7); fails by chance below 1e-6."""
    streams = module._Streams(np.arange(30_000), key=1)
    counts = np.bincount(streams.below(np.arange(30_000), 7), minlength=7)
    assert stats.chisquare(counts).pvalue > 1e-6


@pytest.mark.parametrize("bad", [{"seed": -1}, {"step": 2**64}, {"log2_sigma": 23}])
def test_bad_input_is_one_line(bad):
    with pytest.raises(InputError, match="got"):
        discrete_gaussian(4, **{"seed": 0, "step": 0, **bad})


def test_the_noisy_sum_lies_on_the_stated_grid_with_the_stated_deviation():
    """20,000 coordinates: deviation within 5 standard errors; every value a grid point."""
    values = torch.linspace(-3, 3, 20_000, dtype=torch.float64)
    noisy = values.clone()
    module.add_discrete_gaussian(noisy, noise_multiplier=1.5, clip_norm=2.0, seed=1, step=1)
    std = 1.5 * 2.0 / (1 - 1.5 * 20_000**0.5 / 2**20)
    steps = noisy / (std / 2**20)
    assert float((steps - steps.round()).abs().max()) < 1e-6
    measured = float((noisy - values).std())
    assert abs(measured / std - 1) < 5 / (2 * 20_000) ** 0.5


def test_a_grid_too_coarse_is_refused():
    with pytest.raises(InputError, match="noise_multiplier: got 6000"):
        module.add_discrete_gaussian(
            torch.zeros(10_000), noise_multiplier=6000.0, clip_norm=1.0, seed=0, step=0
        )


@pytest.mark.parametrize(("sigma", "size"), [(0.5, 10), (1.0, 4_802_120), (30.0, 20_000)])
def test_the_noise_covers_what_rounding_adds_to_the_sensitivity(sigma, size):
    clip_norm = 0.7
    grid = module.grid_step(sigma, clip_norm, size)
    deviation = grid * 2**module.LOG2_SIGMA
    after = module.sensitivity_on_grid(clip_norm, grid, size)
    assert deviation / after == pytest.approx(sigma, rel=1e-12)
    assert deviation > sigma * clip_norm


def test_neighbours_on_the_grid_are_no_farther_apart_than_stated():
    """2,000 random pairs, and the worst: every coordinate rounds away from its neighbour's."""
    size, clip_norm = 50, 1.0
    grid = module.grid_step(1e4, clip_norm, size)  # a coarse one, where it matters
    bound = module.sensitivity_on_grid(clip_norm, grid, size)
    stream = np.random.default_rng(3)
    one = stream.normal(0, 2, (2000, size))
    apart = stream.normal(0, 1, (2000, size))
    other = one + clip_norm * apart / np.linalg.norm(apart, axis=1, keepdims=True)
    on_grid = [np.round(sums / grid) * grid for sums in (one, other)]
    assert np.linalg.norm(on_grid[0] - on_grid[1], axis=1).max() <= bound
    low = np.full(size, 0.499999 * grid)
    steps = np.floor(clip_norm / size**0.5 / grid)
    high = np.full(size, (steps + 0.500001) * grid)
    assert np.linalg.norm(high - low) <= clip_norm
    worst = np.linalg.norm(np.round(high / grid) * grid - np.round(low / grid) * grid)
    assert worst > np.linalg.norm(high - low)
    assert worst <= bound
