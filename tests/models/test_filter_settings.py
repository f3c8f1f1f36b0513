"""Random filters one step at a time: each setting changes what it says and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repro.data.discs import disc_images
from repro.errors import InputError
from repro.federated import whitening
from repro.federated.features import fixed_features
from repro.federated.images import normalise
from repro.federated.whitening import Whitened
from repro.models.random_filters import (
    DrawnChoiceRings,
    RandomFilterRings,
    TurnedFilterRings,
    filters,
)
from repro.models.rings import ring_statistics
from repro.runs.filter_settings import FilterSettings
from repro.runs.settings import ModelSettings

SMALL = FilterSettings(banks=((1, 4), (3, 5)), views=1, axes=10)


def images(count=3):
    return torch.rand(count, 3, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


def features(settings: FilterSettings) -> torch.Tensor:
    return TurnedFilterRings(filters=settings).features(images())


def test_the_ends_of_the_way_are_the_models_of_the_arms():
    one_view = FilterSettings(banks=((1, 32), (3, 64)), views=1)
    torch.testing.assert_close(
        features(one_view), RandomFilterRings().features(images()), atol=1e-6, rtol=1e-5
    )
    assert torch.equal(features(FilterSettings()), TurnedFilterRings().features(images()))
    drawn = FilterSettings(banks=((1, 32), (3, 128), (5, 96)), views=8, axes=384)
    assert torch.equal(features(drawn), DrawnChoiceRings().features(images()))


def test_a_filter_of_one_colour_sees_that_one_alone():
    for weight, _ in filters(3, SMALL.banks, one_colour=True):
        for number, one in enumerate(weight):
            assert one.norm() == pytest.approx(1, abs=1e-6)
            assert one[number % 3].norm() == pytest.approx(1, abs=1e-6)
    assert not torch.equal(features(SMALL), features(replace(SMALL, colours="one")))


@pytest.mark.parametrize("averaged", [False, True])
def test_the_modulus_is_taken_without_thresholds(averaged):
    """By hand: correlate, take |·|, average blocks of 4 × 4 or not, then the rings."""
    wanted = []
    for weight, _ in filters(3, SMALL.banks):
        border = weight.shape[-1] // 2
        padded = F.pad(images(), [border] * 4, mode="reflect")
        patches = F.unfold(padded, weight.shape[-1])
        responses = (weight.flatten(1) @ patches).unflatten(2, (28, 28))
        maps = responses.abs()
        blocks = maps.unflatten(3, (7, 4)).unflatten(2, (7, 4)).mean((3, 5))
        wanted.append(ring_statistics(blocks if averaged else maps))
    found = features(replace(SMALL, response="averaged modulus" if averaged else "modulus"))
    torch.testing.assert_close(found, torch.cat(wanted, 1), atol=5e-4, rtol=1e-4)


def test_what_whitens_is_what_was_chosen(monkeypatch):
    """By nothing: the raw features at length 1. By discs: their standard deviations become 1."""
    monkeypatch.setattr(whitening, "IMAGES", 8)
    raw = 6 * 9
    plain = TurnedFilterRings(filters=replace(SMALL, whitened_by="nothing", axes=raw))
    torch.testing.assert_close(
        Whitened(plain, 3).features(images()), F.normalize(plain.features(images())), rtol=1e-5,
        atol=1e-6,
    )  # fmt: skip
    of = {}
    for kind in ("cells", "discs"):
        whitened = Whitened(TurnedFilterRings(filters=replace(SMALL, whitened_by=kind)), 3)
        of[kind] = whitened.statistics()
    own = normalise(torch.from_numpy(disc_images(64)).permute(0, 3, 1, 2))
    raw_features = TurnedFilterRings(filters=SMALL).features(own)
    torch.testing.assert_close(of["discs"][0], raw_features.mean(0), atol=1e-5, rtol=1e-5)
    assert (of["cells"][0] - of["discs"][0]).abs().max() > 0.05


def test_discs_are_the_same_on_every_call_and_of_all_colours_and_places():
    drawn = disc_images(300)
    assert drawn.shape == (300, 28, 28, 3)
    # Word by word the same on any machine.
    assert hashlib.md5(drawn[:2].tobytes()).hexdigest() == "09b1488816858526188e51f1c77dfc42"
    # No middle: a pixel's mean over images does not depend on where it lies. 74 a pixel's
    # deviation, 300 images: 6 deviations of the mean are 26.
    means = drawn.mean(axis=(0, 3))
    assert np.abs(means - 127.5).max() < 26
    assert 60 < drawn.std() < 90


def test_kept_features_of_two_settings_are_two(tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "IMAGES", 8)
    given = (np.random.default_rng(0).random((3, 28, 28, 3)) * 255).astype(np.uint8)
    found = [
        fixed_features(Whitened(TurnedFilterRings(filters=one), 3), given, tmp_path)
        for one in (SMALL, replace(SMALL, response="modulus"))
    ]
    assert len(list(tmp_path.glob("*.npy"))) == 2
    assert not np.array_equal(*found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("banks", ((2, 4),)),
        ("banks", ()),
        ("views", 3),
        ("axes", 55),
        ("colours", "two"),
        ("response", "square"),
        ("whitened_by", "photographs"),
        ("whitened_by", "nothing"),  # on fewer axes than there are features
    ],
)
def test_a_setting_that_cannot_be_is_refused(field, value):
    with pytest.raises(InputError):
        replace(SMALL, **{field: value})
    with pytest.raises(InputError, match="filters"):
        ModelSettings("random-filters", filters=SMALL)
