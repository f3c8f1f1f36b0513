"""The scattering transform against a direct float64 evaluation of its definition, and its part
in a run: features once per image, a linear layer that learns."""

import numpy as np
import pytest
import torch

from repro.errors import InputError
from repro.models import ScatteringLinear
from repro.models import scattering as module
from repro.models.scattering import ANGLES, BORDER, PATHS, SCALES, scattering


def by_definition(image):
    """Orders 0 to 2 of one map (N, N), every convolution a double sum over the padded image's
    pixels in float64, at full resolution, subsampled only at the end."""
    padded = np.pad(image.astype(np.float64), BORDER, mode="reflect")
    size = len(padded)

    def convolve(signal, kernel):
        result = np.zeros((size, size), dtype=np.complex128)
        for i in range(size):
            for j in range(size):
                result += kernel[i, j] * np.roll(signal, (i, j), axis=(0, 1))
        return result

    def spatial(scale, number):
        return np.fft.ifft2(module._morlet(size, scale, number))

    low = module._gabor(size, 0.8 * 2 ** (SCALES - 1), 0.0, 0.0, 1.0)
    step = 2**SCALES

    def average(signal):
        return convolve(signal, low).real[::step, ::step][1:-1, 1:-1]

    waves = [(scale, spatial(scale, number)) for scale in range(SCALES) for number in range(ANGLES)]
    orders = [[average(padded)], [], []]
    for scale, wave in waves:
        first = np.abs(convolve(padded, wave))
        orders[1].append(average(first))
        for coarser, second in waves:
            if coarser > scale:
                orders[2].append(average(np.abs(convolve(first, second))))
    return np.stack([one for order in orders for one in order])


def test_equals_the_definition_up_to_aliasing():
    """On smooth and on white images. Computing at the coarsest resolution aliases what a filter
    lets through above it: at most 2 % of the largest coefficient of an order, measured 0.6 %."""
    stream = np.random.default_rng(0)
    white = stream.normal(size=(8, 8))
    rows, columns = np.mgrid[:8, :8]
    smooth = np.sin(rows / 2.0) + np.cos(columns / 3.0)
    for image in (white, smooth):
        mine = scattering(torch.tensor(image[None, None], dtype=torch.float32))[0].double().numpy()
        truth = by_definition(image)
        assert mine.shape == truth.shape == (PATHS, 2, 2)
        for part in (slice(0, 1), slice(1, 17), slice(17, PATHS)):
            error = np.abs(mine[part] - truth[part]).max()
            assert error <= 0.02 * np.abs(truth[part]).max()


def test_wavelets_have_mean_zero_and_the_average_has_mean_one():
    for scale in range(SCALES):
        for number in range(ANGLES):
            assert abs(module._morlet(36, scale, number)[0, 0]) < 1e-12
    bank = module._bank(36, "cpu")
    flat = torch.full((1, 36, 36), 3.0)
    assert torch.allclose(bank.average(flat, 0), torch.full((1, 7, 7), 3.0), atol=0.02)


def test_turning_the_image_by_half_a_turn_turns_the_maps():
    """|x ⋆ ψ| knows a direction and not its sign; the grid of averages is off by one pixel."""
    torch.manual_seed(0)
    image = torch.randn(2, 3, 28, 28)
    maps, turned = scattering(image), scattering(image.flip(2, 3))
    assert torch.allclose(turned.mean((2, 3)), maps.mean((2, 3)), rtol=0.2, atol=0.05)


def test_model_is_features_then_head():
    torch.manual_seed(0)
    model = ScatteringLinear(in_channels=3, num_classes=8)
    images = torch.randn(4, 3, 28, 28)
    features = model.features(images)
    assert features.shape == (4, 3 * PATHS * 49)
    assert not features.requires_grad
    assert torch.equal(model.head(features), model(images))
    assert {name for name, _ in model.named_parameters()} == {"head.weight", "head.bias"}


def test_features_of_an_image_do_not_depend_on_the_others():
    """What makes them free in ε: other images in the batch change at most the last bits."""
    torch.manual_seed(0)
    model = ScatteringLinear(in_channels=1, size=8)
    images = torch.randn(5, 1, 8, 8)
    alone = torch.cat([model.features(image[None]) for image in images])
    assert torch.allclose(alone, model.features(images), atol=1e-5)
    images[1:] *= 1e6
    assert torch.allclose(model.features(images)[0], alone[0], atol=1e-5)


@pytest.mark.parametrize("size", [4, 30])
def test_other_sizes_are_refused(size):
    with pytest.raises(InputError, match="size"):
        ScatteringLinear(size=size)
