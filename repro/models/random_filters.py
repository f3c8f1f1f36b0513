"""Random filters in rings, for the whitened linear layer: chosen by a seed, not by any image.

One layer of convolutions with Gaussian weights and random thresholds, rectified (random features:
Rahimi & Recht 2007, *Random features for large-scale kernel machines*; with pooling: Saxe et al.
2011, *On random weights and unsupervised feature learning*). Unlike the wavelets of
``repro.models.scattering``, every filter sees all colours at once, and rectifying its response
tells how much of one colour, or of one edge between two colours, is there. Nothing is trained and
no image looked at, so they cost no privacy. docs/feature-search.md has what was tried beside them.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.models.rings import ring_statistics
from repro.models.whitened import WhitenedLinear
from repro.randomness import RootSeed
from repro.shapes import Float

FILTERS = ((1, 32), (3, 64))  # (side in pixels, how many)
Banks = tuple[tuple[int, int], ...]
THRESHOLD = 0.5  # responses are moved by up to this, up or down, before they are rectified
_SEED = 0  # of the filters: part of the model, the same in every run and hospital


class RandomFilterRings(nn.Module):
    """``features``: mean and deviation in three rings of every rectified map; ``head``.

    in_channels, num_classes: as of DPResNet; width: ignored, there for the registry's sake.
    The features have no parameters. They are whitened by ``repro.federated.whitening``, from
    images that a program drew, to ``whitened_features`` numbers: all of them, 576.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 8, width: int = 64) -> None:
        super().__init__()
        self.raw_features = 6 * sum(count for _, count in FILTERS)
        self.whitened_features = self.raw_features
        self.head = WhitenedLinear(self.whitened_features, num_classes)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """(B, C, N, N) in [−1, 1], N at least 2 -> (B, ``raw_features``) float32."""
        x = images.float()
        pooled = []
        for weight, threshold in filters(x.shape[1]):
            pooled.append(rectified_statistics(x, weight, threshold))
        return torch.cat(pooled, dim=1)


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
    channels: int, banks: Banks = FILTERS, *, one_colour: bool = False
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
