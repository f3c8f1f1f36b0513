"""Images of nothing in particular, drawn by a program: discs that cover each other.

Whitening needs images whose features go together about as those of real ones do. Where nothing is
known of the data but that they are images, these stand in: opaque discs of all sizes, the later
over the earlier ("dead leaves": Lee, Mumford, Huang 2001, *Occlusion models for natural images*;
as private training's drawn images: Tang et al. 2023, DP-RandP, arXiv 2306.06076), with colour,
blur, grain and light of each image's own. There are no classes.

The same on every machine, for the reasons that ``repro.data.synthetic`` gives.
"""

from __future__ import annotations

import numpy as np

from repro.data.catalog import SIDE
from repro.data.synthetic import _disc, _Draws, _grid, _pair
from repro.typing import UInt8

LEAVES = 40  # discs an image; those below the last dozen are mostly covered
SMALLEST, LARGEST = 1.5, 20.0  # radii, pixels, of a density ∝ r⁻³: alike at every scale
_CHUNK = 512


def drawn_leaves(count: int, stream: int = 0) -> UInt8[np.ndarray, "images 28 28 3"]:
    """``count`` images. stream: which; different streams are unrelated."""
    starts = range(0, count, _CHUNK)
    return np.concatenate(
        [_draw(_Draws(stream, start, min(_CHUNK, count - start))) for start in starts]
    )


def _draw(draws: _Draws) -> UInt8[np.ndarray, "images 28 28 3"]:
    across, down = _grid()
    tint = [draws.triangular(40.0) for _ in range(3)]  # of the whole image
    level = draws.uniform(60.0, 190.0)
    contrast = draws.uniform(0.15, 1.0)
    canvas = draws.planes((0.0, 0.0, 0.0))
    edge = draws.uniform(0.8, 3.0)
    least, most = LARGEST**-2, SMALLEST**-2
    for _ in range(LEAVES):
        x, y = draws.uniform(-18.0, 18.0), draws.uniform(-18.0, 18.0)
        # P(R > r) is linear in r⁻², which is the density above.
        radius = 1 / np.sqrt(draws.uniform(least, most))
        distance = _disc((across - x) / edge, (down - y) / edge, radius / edge, edge=1.0)
        tone = draws.triangular(150.0)  # most of what differs between discs is how light they are
        for plane in canvas:
            plane += (tone + draws.triangular(70.0) - plane) * distance
    fine = draws.uniform(-1.0, 1.0, SIDE, SIDE)
    coarse = _pair(_pair(fine, 1), 2) * np.float32(0.5)
    mix = draws.uniform(0.0, 1.0)
    grain = (fine * (1 - mix) + coarse * mix) * draws.uniform(0.0, 40.0)
    pixels = np.empty((len(fine), SIDE, SIDE, 3), dtype=np.uint8)
    for channel, plane in enumerate(canvas):
        value = level + tint[channel] + plane * contrast + grain
        value = value + draws.uniform(-4.0, 4.0, SIDE, SIDE)
        pixels[..., channel] = np.clip(value + np.float32(0.5), 0, 255).astype(np.uint8)
    return pixels
