"""Random filters in rings: their definition, what they see, and that turning changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from repro.models.random_filters import (
    THRESHOLD,
    RandomFilterRings,
    TurnedFilterRings,
    filters,
    quarter_turns,
    rectified_statistics,
    turned,
)
from repro.models.rings import ring_statistics

FEW, MANY = RandomFilterRings.banks, TurnedFilterRings.banks


def images(count=3, channels=3, side=28):
    """Of values in [−1, 1]."""
    stream = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, side, side, generator=stream) * 2 - 1


def by_definition(image):
    """Every pixel's window against every filter, in float64; rings are tested on their own."""
    parts = []
    for weight, threshold in filters(len(image), FEW):
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
    inputs = images(channels=channels, side=12)
    model = RandomFilterRings(in_channels=channels)
    got = model.features(inputs)
    assert got.shape == (3, model.raw_features) == (3, 6 * sum(count for _, count in FEW))
    wanted = torch.stack([by_definition(image.double().numpy()) for image in inputs])
    # A deviation near 0 loses half the digits: float32 has 1e-7, its root 3e-4.
    torch.testing.assert_close(got.double(), wanted, atol=5e-4, rtol=1e-4)


def test_filters_are_the_same_in_every_run_and_leave_other_randomness_alone():
    torch.manual_seed(1)
    filters.cache_clear()
    first = filters(3, FEW)
    after = torch.rand(())
    torch.manual_seed(1)
    assert torch.rand(()) == after
    filters.cache_clear()
    for (weight, threshold), (again, same) in zip(first, filters(3, FEW), strict=True):
        assert torch.equal(weight, again)
        assert torch.equal(threshold, same)


def test_filters_have_length_one_and_no_two_are_alike():
    for (side, count), (weight, threshold) in zip(FEW, filters(3, FEW), strict=True):
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
    plain = images(count=4, side=16)
    turned = plain.clone()
    turned[:, 1] = plain[:, 1].rot90(2, (1, 2))
    torch.testing.assert_close(ring_statistics(turned), ring_statistics(plain), atol=1e-5, rtol=0)
    model = RandomFilterRings()
    spread = model.features(plain).std(0).mean()
    assert (model.features(turned) - model.features(plain)).abs().mean() > 0.3 * spread


@pytest.mark.parametrize(("model", "raw"), [(RandomFilterRings, 576), (TurnedFilterRings, 1152)])
def test_only_the_linear_layer_has_parameters(model, raw):
    model = model(num_classes=4)
    assert [parameter.numel() for parameter in model.parameters()] == [576 * 4]
    assert (model.whitened_features, model.raw_features) == (576, raw)


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_turned_are_images_turned(channels):
    """The definition: the same filters on all 24 views of the image, averaged."""
    inputs = images(channels=channels)
    views = [
        view
        for degrees in TurnedFilterRings.turns
        for view in quarter_turns(turned(inputs, degrees))
    ]
    assert len(views) == 24
    wanted = [
        torch.stack([rectified_statistics(view, *bank) for view in views]).mean(0)
        for bank in filters(channels, MANY)
    ]
    model = TurnedFilterRings(in_channels=channels)
    got = model.features(inputs)
    assert got.shape == (3, model.raw_features) == (3, 6 * sum(count for _, count in MANY))
    # A deviation near 0 loses half the digits: float32 has 1e-7, its root 3e-4.
    torch.testing.assert_close(got, torch.cat(wanted, 1), atol=5e-4, rtol=1e-4)


def test_an_image_turned_by_a_quarter_or_mirrored_has_the_same_features():
    inputs = images(count=5)
    model = TurnedFilterRings()
    plain = model.features(inputs)
    spread = plain.std(0).mean()
    for view in quarter_turns(inputs)[1:]:
        assert (model.features(view) - plain).abs().max() < 1e-3 * spread + 5e-4
    one_view = torch.cat([rectified_statistics(inputs, *bank) for bank in filters(3, MANY)], 1)
    other = torch.cat(
        [rectified_statistics(inputs.rot90(1, (2, 3)), *bank) for bank in filters(3, MANY)], 1
    )
    assert (one_view - other).abs().mean() > 0.05 * one_view.std(0).mean()  # the test can fail


def test_an_image_turned_by_thirty_degrees_has_nearly_the_same_features():
    """A smooth blob off the middle: 30, 60 and 90 degrees lie in the group, 15 between them."""
    axis = torch.linspace(-1, 1, 28)
    blob = torch.exp(-((axis[:, None] - 0.3) ** 2 + axis[None] ** 2) / 0.05)
    colours = torch.tensor([1.0, -0.5, 0.2])[:, None, None]
    image = (blob[None] * colours)[None]
    model = TurnedFilterRings()
    plain = model.features(image)

    def change(degrees):
        return float((model.features(turned(image, degrees)) - plain).norm() / plain.norm())

    assert change(30.0) < 0.01
    assert change(15.0) < 0.02
    half = torch.cat(
        [rectified_statistics(turned(image, 30.0), *bank) for bank in filters(3, MANY)], 1
    )
    once = torch.cat([rectified_statistics(image, *bank) for bank in filters(3, MANY)], 1)
    assert float((half - once).norm() / once.norm()) > 3 * change(30.0)


def test_turning_is_about_the_middle_and_by_the_angle():
    image = torch.zeros(1, 1, 29, 29)
    image[0, 0, 14, 24] = 1.0  # ten pixels to the right of the middle
    for degrees in (30.0, 60.0):
        seen = turned(image, degrees)[0, 0]
        rows, columns = torch.meshgrid(torch.arange(29.0), torch.arange(29.0), indexing="ij")
        middle = torch.stack([(seen * part).sum() / seen.sum() - 14 for part in (columns, rows)])
        assert middle.norm() == pytest.approx(10, abs=0.2)
        angle = math.degrees(math.atan2(float(middle[1]), float(middle[0])))
        assert abs(angle) == pytest.approx(degrees, abs=2)
