"""Random filters in rings, averaged over turns and mirrors of the image: cells have no orientation.

The average over a group of what a filter sees does not change when the image is turned by an
element of the group, so no feature is spent on how a cell happens to lie (averaging over a group:
Cohen & Welling 2016, *Group equivariant convolutional networks*, whose p4m is the eight below).
Up to three times eight views: the image turned by 0, 30 and 60 degrees, and each of those by
quarter turns and mirrored. Quarter turns and mirrors are done to the filters, which is the same,
as rings do not see them, and needs no interpolation. Nothing is trained and no image looked at.
docs/feature-search.md has what was tried beside it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models import random_filters
from repro.models.random_filters import Banks, filters, rectified_statistics
from repro.models.whitened import WhitenedLinear
from repro.runs.filter_settings import FilterSettings
from repro.shapes import Float


class TurnedFilterRings(nn.Module):
    """``features``: as of ``RandomFilterRings``, averaged over views of the image; ``head``.

    in_channels, num_classes: as of DPResNet; width: ignored, there for the registry's sake;
    filters: other ones than the class', for the ablation of features.
    The features have no parameters. ``repro.federated.whitening`` turns them onto the
    ``whitened_features`` principal axes of images that a program drew.
    """

    filters: FilterSettings | None = None
    banks: Banks = ((1, 32), (3, 64), (5, 96))  # (side in pixels, how many)
    turns: tuple[float, ...] = (0.0, 30.0, 60.0)  # degrees, each with quarter turns and mirrors
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
        self.raw_features = 6 * sum(count for _, count in self.banks)
        self.whitened_features = self.axes
        self.head = WhitenedLinear(self.whitened_features, num_classes)

    def sources(self) -> tuple[Any, ...]:
        """Modules the features depend on beside this one: for the cache's key."""
        return (random_filters,)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """(B, C, N, N) in [−1, 1], N at least 3 -> (B, ``raw_features``) float32."""
        x = images.float()
        views = [self._over_mirrors(turned(x, degrees)) for degrees in self.turns]
        return torch.stack(views).mean(0)

    def _over_mirrors(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """Each filter's statistics, averaged over its quarter turns and their mirror images."""
        varied = self.filters or FilterSettings()
        banks = filters(x.shape[1], self.banks, one_colour=varied.colours == "one")
        pooled = []
        for weight, threshold in banks:
            # A pixel looks the same however it is turned.
            alone = weight.shape[-1] == 1 or varied.views == 1
            orbit = [weight] if alone else quarter_turns(weight)
            parts = [
                rectified_statistics(x, one, threshold, response=varied.response) for one in orbit
            ]
            pooled.append(torch.stack(parts).mean(0))
        return torch.cat(pooled, dim=1)


class DrawnChoiceRings(TurnedFilterRings):
    """The same with what ``tools/settings_from_drawn_images.py`` chose: no private image did."""

    banks = ((1, 32), (3, 128), (5, 96))
    turns = (0.0,)
    axes = 384


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
