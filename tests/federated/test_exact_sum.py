"""The weighted mean: right, and the same bits in any order and any split."""

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.federated.aggregation import PlainAggregator
from repro.federated.parallel.exact_sum import ExactWeightedSum, mean_of
from repro.federated.parallel.ranks import Ranks


@given(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.integers(1, 2000), min_size=1, max_size=20),
    scale=st.sampled_from([1e-6, 1e-2, 1.0, 300.0]),
)
def test_mean_is_right_and_blind_to_order(seed, weights, scale):
    generator = torch.Generator().manual_seed(seed)
    vectors = [scale * torch.randn(33, generator=generator) for _ in weights]
    total = sum(weights)
    in_order, shuffled = (ExactWeightedSum(33, total) for _ in range(2))
    pairs = list(zip(vectors, weights, strict=True))
    for vector, weight in pairs:
        in_order.add(vector, weight)
    random.Random(seed).shuffle(pairs)
    parts = [ExactWeightedSum(33, total) for _ in range(3)]  # as three ranks would hold it
    for index, (vector, weight) in enumerate(pairs):
        parts[index % 3].add(vector, weight)
    shuffled.total = sum(part.total for part in parts)
    assert torch.equal(in_order.mean(), mean_of(shuffled.total, total, in_order.bits))
    truth = sum(v.double() * w for v, w in zip(vectors, weights, strict=True)) / total
    bound = 2.0**-in_order.bits + truth.abs() * 2.0**-23
    assert bool(((in_order.mean() - truth).abs() <= bound).all())


def test_fedavg_weighs_by_images():
    aggregator, updates = PlainAggregator(Ranks()), torch.eye(3)
    aggregator.start(1, {4: 10, 7: 30, 9: 60}, updates[0])
    for hospital, update in zip((9, 4, 7), updates, strict=True):
        aggregator.add(hospital, update)
    combined = aggregator.finish()
    assert combined.survivors == (4, 7, 9)
    torch.testing.assert_close(combined.mean, torch.tensor([0.6, 0.1, 0.3]))


def test_largest_values_do_not_overflow():
    exact = ExactWeightedSum(1, 2**30)
    exact.add(torch.tensor([4095.9]), 2**30)
    assert exact.mean().item() == pytest.approx(4095.9, rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5000.0])
def test_diverged_updates_are_refused_and_leave_the_sum_alone(value):
    exact = ExactWeightedSum(2, 10)
    exact.add(torch.tensor([1.0, 2.0]), 5)
    with pytest.raises(InputError, match="diverged"):
        exact.add(torch.tensor([0.0, value]), 5)
    assert exact.mean().tolist() == [1.0, 2.0]
