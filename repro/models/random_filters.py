"""Random filters in rings, for the whitened linear layer: chosen by a seed, not by any image.

One layer of convolutions with Gaussian weights and random thresholds, rectified (random features:
Rahimi & Recht 2007, *Random features for large-scale kernel machines*; with pooling: Saxe et al.
2011, *On random weights and unsupervised feature learning*). Unlike the wavelets of
``repro.models.scattering``, every filter sees all colours at once, and rectifying its response
tells how much of one colour, or of one edge between two colours, is there. Nothing is trained and
no image looked at, so they cost no privacy. docs/feature-search.md has what was tried beside them.

Cells have no orientation, so the better features are averages over turns and mirrors of the image:
such an average does not change when the image is turned by an element of the group (Cohen &
Welling 2016, *Group equivariant convolutional networks*, whose p4m is the eight below). Up to
three times eight views: the image turned by 0, 30 and 60 degrees, and each of those by quarter
turns and mirrored. Quarter turns and mirrors are done to the filters, which is the same, as rings
do not see them, and needs no interpolation.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.rings import ring_statistics
from repro.models.whitened import WhitenedLinear
from repro.randomness import RootSeed
from repro.runs.filter_settings import FilterSettings
from repro.shapes import Float

Banks = tuple[tuple[int, int], ...]
THRESHOLD = 0.5  # responses are moved by up to this, up or down, before they are rectified
_SEED = 0  # of the filters: part of the model, the same in every run and hospital


class TurnedFilterRings(nn.Module):
    """``features``: mean and deviation in three rings of every rectified map, averaged over views
    of the image; ``head``.

    in_channels, num_classes: as of DPResNet; width: ignored, there for the registry's sake;
    filters: other ones than the class', for the ablation of features.
    The features have no parameters. ``repro.federated.whitening`` turns them onto the
    ``whitened_features`` principal axes of images that a program drew.
    """

    filters: FilterSettings | None = None
    banks: Banks = ((1, 32), (3, 64), (5, 96))  # (side in pixels, how many)
    turns: tuple[float, ...] = (0.0, 30.0, 60.0)  # degrees
    mirrored: bool = True  # is each turn seen in all quarter turns and mirrors too?
    axes: int = 576  # more of them cost noise, and second moments grow as their square

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 8,
        width: int = 64,
        *,
        filters: FilterSettings | None = None,
    ) -> None:
        super().__init__()
        if filters is not None:
            self.filters = filters
            self.banks, self.axes = filters.banks, filters.axes
            self.turns = self.turns if filters.views == 24 else (0.0,)
            self.mirrored = filters.views > 1
        self.raw_features = 6 * sum(count for _, count in self.banks)
        self.whitened_features = self.axes
        self.head = WhitenedLinear(self.whitened_features, num_classes)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """(B, C, N, N) in [−1, 1], N at least 3 -> (B, ``raw_features``) float32."""
        x = images.float()
        views = [self._over_mirrors(turned(x, degrees)) for degrees in self.turns]
        return torch.stack(views).mean(0)

    def _over_mirrors(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """Each filter's statistics, averaged over its quarter turns and their mirror images."""
        varied = self.filters or FilterSettings()
        pooled = []
        for weight, threshold in filters(
            x.shape[1], self.banks, one_colour=varied.colours == "one"
        ):
            # A pixel looks the same however it is turned.
            alone = weight.shape[-1] == 1 or not self.mirrored
            orbit = [weight] if alone else quarter_turns(weight)
            parts = [
                rectified_statistics(x, one, threshold, response=varied.response) for one in orbit
            ]
            pooled.append(torch.stack(parts).mean(0))
        return torch.cat(pooled, dim=1)


class RandomFilterRings(TurnedFilterRings):
    """Of the image as it is, and fewer: all 576 features are kept."""

    banks = ((1, 32), (3, 64))
    turns = (0.0,)
    mirrored = False


class DrawnChoiceRings(TurnedFilterRings):
    """What ``tools/settings_from_drawn_images.py`` chose: no private image did."""

    banks = ((1, 32), (3, 128), (5, 96))
    turns = (0.0,)
    axes = 384


def rectified_statistics(
    x: Float[Tensor, "b c h w"],
    weight: Float[Tensor, "k c s s"],
    threshold: Float[Tensor, " k"],
    *,
    response: str = "rectified",
) -> Float[Tensor, "b features"]:
    """``ring_statistics`` of the K rectified maps, the image mirrored at its border: (B, 6·K).

    response: as of ``FilterSettings``; the modulus is taken without thresholds.
    """
    border = weight.shape[-1] // 2
    padded = F.pad(x, [border] * 4, mode="reflect") if border else x
    weight = weight.to(x.device)
    if response != "rectified":
        maps = F.conv2d(padded, weight).abs_()
        return ring_statistics(F.avg_pool2d(maps, 4) if response == "averaged modulus" else maps)
    return ring_statistics(F.conv2d(padded, weight, threshold.to(x.device)).relu_())


@lru_cache(maxsize=8)
def filters(
    channels: int, banks: Banks, *, one_colour: bool = False
) -> tuple[tuple[Float[Tensor, "k c s s"], Float[Tensor, " k"]], ...]:
    """Weights, Gaussian and then scaled to length 1, and thresholds, for each of ``banks``.

    Of length 1, so that all filters answer alike to noise, and responses lie within a few units.
    one_colour: the k-th of a bank sees channel k mod C alone.
    """
    drawn = []
    for side, count in banks:
        stream = RootSeed.from_user(_SEED).torch_generator("random filters", channels, side)
        weight = torch.randn(count, channels * side * side, generator=stream)
        if one_colour:
            seen = F.one_hot(torch.arange(count) % channels, channels).to(weight.dtype)
            weight = weight * seen.repeat_interleave(side * side, dim=1)
        weight = F.normalize(weight, dim=1).view(count, channels, side, side)
        drawn.append((weight, (torch.rand(count, generator=stream) * 2 - 1) * THRESHOLD))
    return tuple(drawn)


def quarter_turns(x: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b c h w"]]:
    """The eight of the square's symmetries, the image itself first."""
    turns = [torch.rot90(x, quarters, (2, 3)) for quarters in range(4)]
    return turns + [one.flip(3) for one in turns]


def turned(x: Float[Tensor, "b c h w"], degrees: float) -> Float[Tensor, "b c h w"]:
    """Turned round its middle, bilinear; what comes in from outside is the image, mirrored."""
    if degrees == 0:
        return x
    angle = math.radians(degrees)
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]],
        dtype=x.dtype,
        device=x.device,
    )
    grid = F.affine_grid(turn.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
