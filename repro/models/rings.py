"""What is seen in rings around the middle of an image: the cell stands there, turned anyhow."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from repro.shapes import Float

RADII = (0.0, 0.4, 0.8)  # of the rings, from the middle (0) to the middle of a side (1)
WIDTH = 0.25  # standard deviation of a ring's weight along the radius


def ring_statistics(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b features"]:
    """Mean and standard deviation of every map in every ring: (B, C, N, N) -> (B, 6·C).

    A ring's weights are a Gaussian in the distance from the middle, normalised to sum 1. They are
    the same in all directions, so a turned image has nearly the same statistics. Fixed, and of
    each image alone.
    """
    weights = _weights(maps.shape[-1], maps.dtype)
    pixels = maps.permute(0, 2, 3, 1).flatten(1, 2)  # one matrix product, in channels-last order
    mean = torch.matmul(weights, pixels)
    second = torch.matmul(weights, pixels * pixels)
    deviation = (second - mean * mean).clamp_min(0).sqrt()
    return torch.cat([mean.flatten(1), deviation.flatten(1)], dim=1)


@lru_cache(maxsize=16)
def _weights(side: int, dtype: torch.dtype) -> Float[Tensor, "rings pixels"]:
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side * 2 - 1
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt().flatten()
    rings = torch.stack([torch.exp(-((radius - r) ** 2) / (2 * WIDTH**2)) for r in RADII])
    return (rings / rings.sum(1, keepdim=True)).to(dtype)
