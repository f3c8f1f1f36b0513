"""Statistics in rings, and the models that use them."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repro.errors import InputError
from repro.models import backbone
from repro.models.rings import RADII, WIDTH, ring_statistics
from repro.models.scattering_rings import ScatteringRings
from repro.models.whitened import WhitenedLinear

WEIGHTS = pytest.mark.skipif(
    not backbone.installed(), reason=f"{backbone.PACKAGE} (the extra `public`) is not installed"
)


def by_definition(image):
    """Pixel by pixel in float64."""
    _, side, _ = image.shape
    means, deviations = [], []
    for ring in RADII:
        weights = np.zeros((side, side))
        for i in range(side):
            for j in range(side):
                y, x = (2 * i + 1) / side - 1, (2 * j + 1) / side - 1
                weights[i, j] = math.exp(-((math.hypot(x, y) - ring) ** 2) / (2 * WIDTH**2))
        weights /= weights.sum()
        mean = (image * weights).sum((1, 2))
        means.append(mean)
        deviations.append(np.sqrt(((image - mean[:, None, None]) ** 2 * weights).sum((1, 2))))
    return np.concatenate(means + deviations)


@pytest.mark.parametrize("side", [4, 7])
def test_rings_equal_their_definition(side):
    images = np.random.default_rng(0).normal(size=(3, 2, side, side))
    got = ring_statistics(torch.from_numpy(images))
    np.testing.assert_allclose(got, [by_definition(image) for image in images], atol=1e-10)


def test_rings_do_not_see_a_turn_or_a_mirror():
    images = torch.randn(4, 3, 14, 14, generator=torch.Generator().manual_seed(0)).double()
    plain = ring_statistics(images)
    for other in (images.rot90(1, (2, 3)), images.flip(3)):
        torch.testing.assert_close(ring_statistics(other), plain, atol=1e-9, rtol=0)
    assert (ring_statistics(images.roll(5, 2)) - plain).abs().max() > 0.1  # but a move they do


def test_whitened_features_have_length_one_and_begin_as_they_were():
    x = F.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    head = WhitenedLinear(6, 3)
    torch.testing.assert_close(head.whitened(x), x)
    assert head(x).abs().max() == 0
    head.mean.copy_(x.mean(0))
    head.transform.copy_(torch.randn(6, 6))
    torch.testing.assert_close(head.whitened(x).norm(dim=1), torch.ones(5))


def test_scattering_in_rings_refuses_other_sizes():
    model = ScatteringRings(num_classes=4)
    assert model.features(torch.zeros(2, 3, 28, 28)).shape == (2, model.raw_features)
    with pytest.raises(InputError, match="size"):
        model.features(torch.zeros(1, 3, 27, 27))


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(backbone.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"'\.\[public\]'"):
        backbone.BackboneRings()


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"something else")
    with pytest.raises(InputError, match=hashlib.sha256(b"something else").hexdigest()[:12]):
        backbone._network(str(tmp_path / "weights.pth"))


@WEIGHTS
def test_backbone_equals_the_network_layer_by_layer():
    """Batch normalisation apart, padding by hand, in float64: no folding, no fused step."""
    state = torch.load(backbone.weights_file(), map_location="cpu", weights_only=True)
    state = {name: value.double() for name, value in state.items()}

    def layer(x, conv, norm, stride=1, groups=1):
        weight = state[f"{conv}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{norm}.{name}"] for name in names), eps=1e-3)

    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = F.interpolate(images.double(), size=(112, 112), mode="bicubic", align_corners=False)
    x = layer(x.clamp(-1, 1), "_conv_stem", "_bn0", 2).clamp(0, 6)
    pooled = [ring_statistics(x)]
    for number, (stride, kernel) in enumerate(backbone.BLOCKS):
        name = f"_blocks.{number}."
        y = x
        if number:
            y = layer(y, f"{name}_expand_conv", f"{name}_bn0").clamp(0, 6)
        assert state[f"{name}_depthwise_conv.weight"].shape[-1] == kernel
        y = layer(y, f"{name}_depthwise_conv", f"{name}_bn1", stride, y.shape[1]).clamp(0, 6)
        y = layer(y, f"{name}_project_conv", f"{name}_bn2")
        x = y + x if stride == 1 and y.shape == x.shape else y
        pooled.append(ring_statistics(x))
    got = backbone.BackboneRings().features(images)
    assert [part.shape[1] // 6 for part in pooled] == list(backbone.CHANNELS)
    # Deviations near 0 lose half the digits: float32 has 1e-7, its root 3e-4.
    torch.testing.assert_close(got.double(), torch.cat(pooled, 1), atol=2e-3, rtol=1e-3)
