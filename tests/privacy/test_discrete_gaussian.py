"""The discrete Gaussian: exact probabilities, moments, and independence of chunks."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from repro.errors import InputError
from repro.privacy import Clipping, clipped_noisy_sum, step
from repro.privacy import discrete_gaussian as module
from repro.privacy.batch import Batch
from repro.privacy.discrete_gaussian import discrete_gaussian
from repro.privacy.engines import ENGINES
from tests.privacy.models import clipped, cross_entropy, looped_gradients


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
    total = torch.arange(-10_000, 10_000) * 1000
    grid = module.grid_step(1.5, 2.0, 20_000)
    noisy = module.add_discrete_gaussian(total, grid=grid, seed=1, step=1)
    std = 1.5 * 2.0 / (1 - 1.5 * 20_000**0.5 / 2 / 2**20)
    steps = noisy / (std / 2**20)
    assert float((steps - steps.round()).abs().max()) < 0.02  # the grid to a relative 1e-9
    measured = float((noisy - total.double() * grid).std())
    assert abs(measured / std - 1) < 5 / (2 * 20_000) ** 0.5


@pytest.mark.parametrize(
    ("multiplier", "message"), [(12_000.0, "got 12000.*too coarse"), (1e-7, "at least 1e-06")]
)
def test_a_grid_too_coarse_or_too_fine_is_refused(multiplier, message):
    with pytest.raises(InputError, match=f"noise_multiplier: .*{message}"):
        module.grid_step(multiplier, 1.0, 10_000)
    assert module.grid_step(0.0, 1.0, 10_000) == 0


def most_on_grid(clip_norm: float, grid: float, size: int) -> float:
    """What one record adds to a sum of rounded ones, at most, in L2."""
    return clip_norm * (1 + module.SLACK) + grid * math.sqrt(size) / 2


@pytest.mark.parametrize(("sigma", "size"), [(0.5, 10), (1.0, 4_802_120), (30.0, 20_000)])
def test_the_noise_covers_what_rounding_adds_to_the_sensitivity(sigma, size):
    """And r² of the variance, which the reduction to the continuous Gaussian takes."""
    clip_norm = 0.7
    grid = module.grid_step(sigma, clip_norm, size)
    deviation = grid * math.sqrt(4**module.LOG2_SIGMA - module.SMOOTHING**2)
    after = most_on_grid(clip_norm, grid, size)
    assert deviation / after == pytest.approx(sigma, rel=1e-12)
    assert deviation > sigma * clip_norm


def length(steps: torch.Tensor, grid: float) -> float:
    """L2 norm of whole steps, summed exactly."""
    return grid * math.sqrt(sum(int(k) ** 2 for k in steps))


def test_a_record_on_the_grid_is_no_longer_than_stated():
    """2,000 random records, longer and shorter than C; and the worst: all coordinates round up."""
    size, clip_norm = 50, 1.0
    grid = module.grid_step(1e4, clip_norm, size)  # a coarse one, where it matters
    bound = most_on_grid(clip_norm, grid, size)
    stream = torch.Generator().manual_seed(3)
    for row in torch.randn(2000, size, generator=stream) * torch.logspace(-3, 3, 2000)[:, None]:
        on_grid = module.record_on_grid(row, clip_norm, grid)
        assert length(on_grid, grid) <= bound
    steps = math.floor(clip_norm / size**0.5 / grid - 0.51)
    worst = torch.full((size,), (steps + 0.5001) * grid, dtype=torch.float64)
    assert float(worst.norm()) <= clip_norm
    up = length(module.record_on_grid(worst, clip_norm, grid), grid)
    assert up - float(worst.norm()) == pytest.approx(grid * size**0.5 / 2, rel=1e-3)
    nothing = module.record_on_grid(torch.tensor([1.0, math.nan]), 1.0, grid)
    assert nothing.tolist() == [0, 0]


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_a_step_without_one_record_differs_by_just_that_records_steps(engine):
    """40 records in single precision. The control: summed as floats, other things move too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3))
    size = sum(p.numel() for p in model.parameters())
    x, y = torch.randn(40, 20), torch.randint(0, 3, (40,))
    clip_norm = 0.5
    grid = module.grid_step(1.0, clip_norm, size)

    def total(start, stop, grid):
        batch = Batch(model, cross_entropy, x[start:stop], y[start:stop], Clipping(clip_norm))
        return step._sum(ENGINES[engine], batch, None, grid).total

    whole, without, alone = total(0, 40, grid), total(1, 40, grid), total(0, 1, grid)
    assert whole.dtype == torch.int64
    assert torch.equal(whole - without, alone)
    assert 0.9 * clip_norm < length(alone, grid)
    assert length(alone, grid) <= most_on_grid(clip_norm, grid, size)
    floats = [torch.round(total(*part, 0.0).double() / grid) for part in ((0, 40), (1, 40))]
    assert not torch.equal((floats[0] - floats[1]).long(), alone)
    rows = clipped(looped_gradients(model, cross_entropy, x, y), clip_norm)
    torch.testing.assert_close(whole.double() * grid, rows, rtol=1e-4, atol=1e-5)
    noisy = clipped_noisy_sum(
        model, cross_entropy, x, y, clip_norm=clip_norm, noise_multiplier=1.0, engine=engine,
        noise="discrete_gaussian", seed=3, step=4, chunk_size=16,
    )  # fmt: skip
    drawn = torch.from_numpy(discrete_gaussian(size, seed=3, step=4))
    assert torch.equal(noisy.flat, ((whole + drawn).double() * grid).float())
    assert (noisy.records, noisy.non_finite) == (40, 0)
