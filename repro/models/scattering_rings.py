"""Scattering coefficients in rings, for the whitened linear layer; no outside data."""

from __future__ import annotations

from torch import Tensor, nn

from repro.errors import InputError
from repro.models.rings import ring_statistics
from repro.models.scattering import BORDER, PATHS, scattering
from repro.models.whitened import WhitenedLinear
from repro.shapes import Float


class ScatteringRings(nn.Module):
    """``features``: mean and deviation in three rings of every scattering map; ``head``.

    in_channels, num_classes: as of DPResNet; width: ignored, there for the registry's sake.
    The features have no parameters. They are whitened by ``repro.federated.whitening``, from
    images that a program drew, to ``whitened_features`` numbers.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 8, width: int = 64) -> None:
        super().__init__()
        self.raw_features = in_channels * PATHS * 6
        self.whitened_features = min(1024, self.raw_features)
        self.head = WhitenedLinear(self.whitened_features, num_classes)

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
        """(B, C, N, N) in [−1, 1], N a multiple of 4 and at least 8 -> (B, ``raw_features``)."""
        if images.shape[-1] < 8 or images.shape[-1] % BORDER:
            raise InputError("size", images.shape[-1], f"a multiple of {BORDER}, at least 8")
        return ring_statistics(scattering(images))
