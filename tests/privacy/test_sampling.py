"""Poisson sampling: rate, independence, and a state that is only a step number."""

import pytest
import torch
from scipy import stats

from repro.errors import InputError
from repro.privacy import PoissonSampler
from repro.randomness import RootSeed

SEED = RootSeed.from_user(3)


def sizes_and_counts(sampler, steps):
    counts, sizes = torch.zeros(sampler.records, dtype=torch.int64), []
    for step in range(steps):
        drawn = sampler.sample(SEED, party=0, round=0, step=step)
        counts[drawn] += 1
        sizes.append(len(drawn))
    return sizes, counts


def test_every_record_takes_part_at_the_rate_and_sizes_are_binomial():
    """χ² of 50 records' counts over 2,000 steps, and KS-free check of the sizes' moments.

    Each check fails by chance with probability below 1e-6 (the seed is fixed).
    """
    sampler, steps = PoissonSampler(50, 0.2), 2000
    sizes, counts = sizes_and_counts(sampler, steps)
    variance = steps * 0.2 * 0.8
    statistic = float(((counts - steps * 0.2).double() ** 2 / variance).sum())
    assert stats.chi2.sf(statistic, 50) > 1e-6
    assert stats.chi2.cdf(statistic, 50) > 1e-6  # too even would be wrong as well
    sizes = torch.tensor(sizes, dtype=torch.float64)
    assert abs(sizes.mean() - 10) < 5 * (8 / steps) ** 0.5
    assert abs(sizes.var() / 8 - 1) < 5 * (2 / steps) ** 0.5 * 1.1


@pytest.mark.parametrize(
    ("expected", "records", "steps"),
    [(1_000_000, 2_000_000, 1), (20_000, 200_000, 50), (4_900, 5_000, 20)],
)
def test_the_rate_drawn_is_the_rate_accounted_for(expected, records, steps):
    """A sampler that draws 1 % more (or fewer) records than the public rate is found out.

    All steps together draw Binomial(steps · records, rate) records; by its exact tails a false
    alarm has probability 1e-6 a case. A surplus of 1 % is 14, 10 and 22 deviations, the alarm
    4.9, so it is missed with probability below 1e-6.
    """
    sampler = PoissonSampler.with_expected_batch(records, expected)
    drawn = sum(len(sampler.sample(SEED, party=0, round=0, step=step)) for step in range(steps))
    law = stats.binom(steps * records, sampler.sample_rate)
    assert law.sf(drawn - 1) > 5e-7
    assert law.cdf(drawn) > 5e-7


def test_a_batch_is_a_function_of_its_place_alone():
    sampler = PoissonSampler(1000, 0.1)
    late = sampler.sample(SEED, party=1, round=2, step=9)
    sampler.sample(SEED, party=1, round=2, step=0)
    assert torch.equal(late, sampler.sample(SEED, party=1, round=2, step=9))
    others = [(2, 2, 9), (1, 3, 9), (1, 2, 8)]
    for party, round_, step in others:
        other = sampler.sample(SEED, party=party, round=round_, step=step)
        assert not torch.equal(late, other)


def test_whole_data_and_public_numbers():
    assert len(PoissonSampler(7, 1.0).sample(SEED, party=0, round=0, step=0)) == 7
    for n in range(1, 200):
        for b in range(1, n + 1):
            sampler = PoissonSampler.with_expected_batch(n, b)
            assert sampler.steps_per_epoch() == -(-n // b)
            assert sampler.expected_batch == pytest.approx(b)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0001, float("nan")])
def test_rates_outside_are_refused(rate):
    with pytest.raises(InputError, match="sample_rate: got"):
        PoissonSampler(10, rate)
