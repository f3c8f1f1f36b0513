"""Images of nothing: overlapping discs of any size, place and colour ("dead leaves").

They have edges at all scales, as photographs do (Lee, Mumford & Huang 2001, *Occlusion models for
natural images*), and nothing of a cell: no middle, no nucleus, no stain. Features whitened by them
owe nothing to what blood cells look like.
"""

from __future__ import annotations

import numpy as np

from repro.shapes import UInt8

DISCS = 60  # painted over each other, of an image
# Pixels; density falls as the radius cubed, so that all scales get their share.
_RADII = (1.5, 14.0)
_KEY = 1983


def disc_images(
    count: int, side: int = 28, channels: int = 3
) -> UInt8[np.ndarray, "images side side channels"]:
    """The same (N, side, side, C) uint8 on every machine; a few seconds for 4,000."""
    stream = np.random.Generator(np.random.PCG64(_KEY))
    axis = np.arange(side, dtype=np.float32)
    images = np.zeros((count, side, side, channels), dtype=np.uint8)
    images += stream.integers(0, 256, (count, 1, 1, channels), dtype=np.uint8)
    small, large = (radius**-2 for radius in _RADII)
    for _ in range(DISCS):
        # By inversion: P(radius > r) ∝ r⁻² − largest⁻².
        radius = (large + (small - large) * stream.random(count)) ** -0.5
        middle = stream.random((2, count)) * side
        across, down = (axis[None, :] - place[:, None] for place in middle)
        inside = across[:, None, :] ** 2 + down[:, :, None] ** 2 < radius[:, None, None] ** 2
        colour = stream.integers(0, 256, (count, 1, 1, channels), dtype=np.uint8)
        images = np.where(inside[..., None], colour, images)
    return images
