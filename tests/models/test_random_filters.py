"""Random filters in rings: their definition, where they come from, what they see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro.models.random_filters import FILTERS, THRESHOLD, RandomFilterRings, filters
from repro.models.rings import ring_statistics


def images(count=3, channels=3, side=12, seed=0):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def by_definition(image):
    """Every pixel's window against every filter, in float64; rings are tested on their own."""
    parts = []
    for weight, threshold in filters(len(image)):
        side = weight.shape[-1]
        border = side // 2
        padded = np.pad(image, [(0, 0), (border, border), (border, border)], mode="reflect")
        maps = np.zeros((len(weight), *image.shape[1:]))
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                window = padded[:, i : i + side, j : j + side]
                answers = (weight.double().numpy() * window).sum((1, 2, 3))
                maps[:, i, j] = np.maximum(answers + threshold.double().numpy(), 0)
        parts.append(ring_statistics(torch.from_numpy(maps[None]))[0])
    return torch.cat(parts)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_equal_their_definition(channels):
    inputs = images(channels=channels) * 2 - 1
    model = RandomFilterRings(in_channels=channels)
    got = model.features(inputs)
    assert got.shape == (3, model.raw_features) == (3, 6 * sum(count for _, count in FILTERS))
    wanted = torch.stack([by_definition(image.double().numpy()) for image in inputs])
    # A deviation near 0 loses half the digits: float32 has 1e-7, its root 3e-4.
    torch.testing.assert_close(got.double(), wanted, atol=5e-4, rtol=1e-4)


def test_filters_are_the_same_in_every_run_and_leave_other_randomness_alone():
    torch.manual_seed(1)
    filters.cache_clear()
    first = filters(3)
    after = torch.rand(())
    torch.manual_seed(1)
    assert torch.rand(()) == after
    filters.cache_clear()
    for (weight, threshold), (again, same) in zip(first, filters(3), strict=True):
        assert torch.equal(weight, again)
        assert torch.equal(threshold, same)


def test_filters_have_length_one_and_no_two_are_alike():
    for (side, count), (weight, threshold) in zip(FILTERS, filters(3), strict=True):
        flat = weight.flatten(1)
        assert weight.shape == (count, 3, side, side)
        torch.testing.assert_close(flat.norm(dim=1), torch.ones(count))
        assert ((flat @ flat.T).fill_diagonal_(0).max()) < 1 - 1e-4
        assert threshold.abs().max() <= THRESHOLD
        # Of k uniform numbers all lie above −0.25 with probability 0.75^k < 1.1e-4, k ≥ 32.
        assert threshold.min() < -THRESHOLD / 2
        assert threshold.max() > THRESHOLD / 2


def test_they_see_which_colours_stand_together():
    """The second colour turned by half a turn: each colour's own statistics stay as they were."""
    plain = images(count=4, side=16) * 2 - 1
    turned = plain.clone()
    turned[:, 1] = plain[:, 1].rot90(2, (1, 2))
    torch.testing.assert_close(ring_statistics(turned), ring_statistics(plain), atol=1e-5, rtol=0)
    model = RandomFilterRings()
    spread = model.features(plain).std(0).mean()
    assert (model.features(turned) - model.features(plain)).abs().mean() > 0.3 * spread


def test_only_the_linear_layer_has_parameters():
    model = RandomFilterRings(num_classes=4)
    assert [parameter.numel() for parameter in model.parameters()] == [576 * 4]
    assert model.whitened_features == model.raw_features == 576
