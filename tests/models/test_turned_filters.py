"""Random filters averaged over turns: their definition, and that turning changes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from repro.models.random_filters import filters, rectified_statistics
from repro.models.turned_filters import TurnedFilterRings, quarter_turns, turned

FILTERS, TURNS = TurnedFilterRings.banks, TurnedFilterRings.turns


def images(count=3, channels=3, side=28, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, side, side, generator=stream) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_turned_are_images_turned(channels):
    """The definition: the same filters on all 24 views of the image, averaged."""
    inputs = images(channels=channels)
    views = [view for degrees in TURNS for view in quarter_turns(turned(inputs, degrees))]
    assert len(views) == 24
    wanted = [
        torch.stack([rectified_statistics(view, *bank) for view in views]).mean(0)
        for bank in filters(channels, FILTERS)
    ]
    model = TurnedFilterRings(in_channels=channels)
    got = model.features(inputs)
    assert got.shape == (3, model.raw_features) == (3, 6 * sum(count for _, count in FILTERS))
    # A deviation near 0 loses half the digits: float32 has 1e-7, its root 3e-4.
    torch.testing.assert_close(got, torch.cat(wanted, 1), atol=5e-4, rtol=1e-4)


def test_an_image_turned_by_a_quarter_or_mirrored_has_the_same_features():
    inputs = images(count=5)
    model = TurnedFilterRings()
    plain = model.features(inputs)
    spread = plain.std(0).mean()
    for view in quarter_turns(inputs)[1:]:
        assert (model.features(view) - plain).abs().max() < 1e-3 * spread + 5e-4
    one_view = torch.cat([rectified_statistics(inputs, *bank) for bank in filters(3, FILTERS)], 1)
    other = torch.cat(
        [rectified_statistics(inputs.rot90(1, (2, 3)), *bank) for bank in filters(3, FILTERS)], 1
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
        [rectified_statistics(turned(image, 30.0), *bank) for bank in filters(3, FILTERS)], 1
    )
    once = torch.cat([rectified_statistics(image, *bank) for bank in filters(3, FILTERS)], 1)
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


def test_only_the_linear_layer_has_parameters():
    model = TurnedFilterRings(num_classes=4)
    assert [parameter.numel() for parameter in model.parameters()] == [576 * 4]
    assert model.whitened_features == 576
    assert model.raw_features == 1152
