"""A stand-in for BloodMNIST: blood-cell-like images drawn by a program.

For machines without the real images, and for tests. It has BloodMNIST's shapes, classes, split
sizes and class counts, and none of its cells: accuracies on it say nothing about real ones.

What tells the classes apart is what tells blood cells apart (the nucleus' lobes, granules, the
cell's size, the tint of its cytoplasm), while position, rotation, stain, light and neighbours
vary freely. So a linear model on pixels is left behind, and a few per cent of the cells are
morphed past the half-way point to another class, so no model reaches 100 %.

Every image is the same on every machine: the random words are PCG64's raw output, whose stream
NumPy guarantees, and pixels are made with + - * / and sqrt alone, elementwise and in float32,
which IEEE 754 defines to the last bit. No exp, sin or sum over an axis, which it does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from repro.data.catalog import BLOODMNIST, SIDE, SPLITS
from repro.data.dataset import Dataset, Split
from repro.shapes import Float, Int64, UInt8

# BloodMNIST's class counts (MedMNIST v2, Yang et al. 2023), in the order of its class names.
CLASS_COUNTS = {
    "train": (852, 2181, 1085, 2026, 849, 993, 2330, 1643),
    "val": (122, 312, 155, 290, 122, 143, 333, 235),
    "test": (244, 624, 311, 579, 243, 284, 666, 470),
}
_KEY = 20241200687
_CHUNK = 512  # images drawn at once: small enough for the cache; part of the random stream

Plane = Float[np.ndarray, "images 28 28"]
Column = Float[np.ndarray, "images 1 1"]

# One row per class. Lengths of nucleus parts are in cell radii: the nucleus is four discs of
# radius `lobe` on a parabola of the given `bend`, `step` apart, with a `gap` in the middle;
# `shift` moves it off centre. Granules have a strength, a coarseness (0 fine, 1 coarse) and
# a warmth (0 dark purple, 1 pink); red, green and blue are the cytoplasm's.
_TRAITS = (
    "radius", "lobe", "step", "bend", "gap", "shift", "density",
    "granules", "coarseness", "warmth", "red", "green", "blue",
)  # fmt: skip
_CLASSES = np.array(
    [
        [8.1, 0.60, 0.16, 0.4, 0.10, 0.10, 0.80, 62, 1.0, 0.0, 168, 122, 172],  # basophil
        [8.5, 0.36, 0.14, 0.6, 0.62, 0.12, 0.90, 46, 0.8, 1.0, 205, 138, 160],  # eosinophil
        [6.8, 0.52, 0.04, 0.2, 0.00, 0.22, 1.00, 6, 0.2, 0.0, 176, 152, 182],  # erythroblast
        [8.9, 0.50, 0.14, 0.6, 0.02, 0.26, 0.84, 30, 0.2, 0.2, 180, 140, 180],  # immature gran.
        [7.4, 0.72, 0.06, 0.2, 0.00, 0.08, 0.95, 6, 0.2, 0.0, 172, 146, 182],  # lymphocyte
        [9.0, 0.36, 0.30, 1.5, 0.00, 0.10, 0.78, 12, 0.9, 0.2, 180, 156, 184],  # monocyte
        [8.4, 0.30, 0.38, 1.5, 0.06, 0.06, 0.92, 18, 0.1, 0.6, 204, 160, 176],  # neutrophil
        [4.4, 0.45, 0.10, 0.2, 0.00, 0.10, 0.35, 34, 0.3, 0.2, 182, 140, 176],  # platelet
    ],
    dtype=np.float32,
)
# How much a trait varies within its class (half-width of a triangular distribution).
_SPREAD = np.array(
    [1.9, 0.06, 0.05, 0.35, 0.10, 0.12, 0.12, 9, 0.25, 0.25, 22, 22, 14], dtype=np.float32
)
# The class a doubtful cell is morphed towards.
_LOOKALIKE = np.array([4, 6, 4, 5, 2, 3, 1, 2])
_DOUBTFUL = 0.12  # share of doubtful cells, morphed by 0 to _FARTHEST of the way
_FARTHEST = 0.65  # so 0.12 · 0.15/0.65 = 2.8 % lie nearer to the other class

_NUCLEUS = (92.0, 54.0, 134.0)  # stained chromatin
_RED_CELL = (208.0, 172.0, 160.0)
_PLASMA = (251.0, 227.0, 198.0)


def synthetic_bloodmnist() -> Dataset:
    """All 17,092 images, the same ones on every call and machine; takes a few seconds."""
    splits = {name: synthetic_split(CLASS_COUNTS[name], stream=i) for i, name in enumerate(SPLITS)}
    md5 = hashlib.md5(usedforsecurity=False)
    for split in splits.values():
        md5.update(split.images.tobytes())
        md5.update(split.labels.astype("<i8").tobytes())
    return Dataset(
        name=BLOODMNIST.name,
        title=BLOODMNIST.title,
        origin="synthetic",
        md5=md5.hexdigest(),
        class_names=BLOODMNIST.class_names,
        channels=BLOODMNIST.channels,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        published=True,
    )


def synthetic_split(counts: Sequence[int], stream: int = 0) -> Split:
    """``counts[c]`` images of class c (up to eight classes), in shuffled order.

    stream: which images; different streams are unrelated. Small counts make small test sets.
    """
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    shuffle = _Draws(stream, -1, len(labels)).words(len(labels))
    labels = labels[np.argsort(shuffle, kind="stable")]
    starts = range(0, len(labels), _CHUNK)
    chunks = [_draw(labels[start : start + _CHUNK], stream, start) for start in starts]
    return Split(np.concatenate(chunks), labels)


class _Draws:
    """Random columns for a chunk of images, from PCG64's raw words."""

    def __init__(self, stream: int, start: int, images: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([_KEY, stream, start + 1]))
        self._images = images

    def words(self, count: int) -> np.ndarray:
        return np.asarray(self._bits.random_raw(count))

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """(images, *shape) float32 in [low, high); ``shape`` is (1, 1) if not given."""
        shape = (self._images, *(shape or (1, 1)))
        count = int(np.prod(shape))
        # The upper 24 bits of each word: exact in float32.
        unit = (self.words(count) >> 40).astype(np.float32) * np.float32(2.0**-24)
        return (unit * np.float32(high - low) + np.float32(low)).reshape(shape)

    def triangular(self, half_width: float, *shape: int) -> np.ndarray:
        return self.uniform(-half_width, half_width, *shape) * np.float32(0.5) + self.uniform(
            -half_width, half_width, *shape
        ) * np.float32(0.5)

    def planes(self, levels: Sequence[float]) -> list[np.ndarray]:
        """One constant (images, 28, 28) float32 plane per level."""
        shape = (self._images, SIDE, SIDE)
        return [np.full(shape, level, dtype=np.float32) for level in levels]

    def direction(self) -> tuple[np.ndarray, np.ndarray]:
        """A unit vector per image."""
        x, y = self.uniform(-1.0, 1.0), self.uniform(-1.0, 1.0)
        length = np.sqrt(x * x + y * y) + np.float32(1e-6)
        return x / length, y / length


def _draw(
    labels: Int64[np.ndarray, " images"], stream: int, start: int
) -> UInt8[np.ndarray, "images 28 28 3"]:
    draws = _Draws(stream, start, len(labels))
    traits = _traits(labels, draws)
    across, down = _grid()
    # Position: the tile is cut around the cell, roughly.
    across = across - draws.triangular(4.0)
    down = down - draws.triangular(4.0)
    canvas = _background(draws)
    _paint_cell(canvas, across, down, traits, draws)
    return _photograph(canvas, draws)


def _traits(labels: Int64[np.ndarray, " images"], draws: _Draws) -> dict[str, Column]:
    doubtful = draws.uniform(0.0, 1.0, 1) < _DOUBTFUL
    way = np.where(doubtful, draws.uniform(0.0, _FARTHEST, 1), np.float32(0))
    own, other = _CLASSES[labels], _CLASSES[_LOOKALIKE[labels]]
    values = own + (other - own) * way + draws.triangular(1.0, len(_TRAITS)) * _SPREAD
    values = np.maximum(values, np.float32(0))
    return {name: values[:, i, None, None] for i, name in enumerate(_TRAITS)}


def _grid() -> tuple[Plane, Plane]:
    """Pixel centres, (1, 28, 28) each, relative to the tile's centre."""
    axis = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    across = np.broadcast_to(axis[None, None, :], (1, SIDE, SIDE))
    return across, np.broadcast_to(axis[None, :, None], (1, SIDE, SIDE))


def _disc(across: np.ndarray, down: np.ndarray, radius: np.ndarray, edge: float = 1.4) -> Plane:
    """Coverage in [0, 1] of a disc around (0, 0), with an edge ``edge`` pixels wide."""
    distance = np.sqrt(across * across + down * down)
    result: Plane = np.clip((radius - distance) / np.float32(edge) + np.float32(0.5), 0, 1)
    return result


def _background(draws: _Draws) -> list[Plane]:
    """Three planes of plasma with red cells (pale in the middle) and sometimes a neighbour."""
    across, down = _grid()
    canvas = draws.planes(_PLASMA)
    tint = [draws.triangular(16.0) for _ in range(3)]
    for _ in range(5):
        x, y = draws.uniform(-17.0, 17.0), draws.uniform(-17.0, 17.0)
        radius = draws.uniform(3.5, 5.0)
        rim = _disc(across - x, down - y, radius)
        hollow = _disc(across - x, down - y, radius * np.float32(0.45), edge=2.5)
        cover = rim * (1 - hollow * draws.uniform(0.3, 0.9))
        _blend(
            canvas, cover * np.float32(0.8), [c + t for c, t in zip(_RED_CELL, tint, strict=True)]
        )
    # A nucleus of another cell, cut by the tile's border, in one image of four.
    x, y = draws.direction()
    away = draws.uniform(14.0, 19.0)
    seen = (draws.uniform(0.0, 1.0) < 0.25).astype(np.float32)
    cover = _disc(across - x * away, down - y * away, draws.uniform(3.0, 6.0)) * seen
    _blend(canvas, cover, [c + t for c, t in zip(_NUCLEUS, tint, strict=True)])
    return canvas


def _paint_cell(
    canvas: list[Plane], across: Plane, down: Plane, traits: dict[str, Column], draws: _Draws
) -> None:
    radius = traits["radius"]
    x, y = draws.direction()
    along, beside = (across * x + down * y) / radius, (down * x - across * y) / radius
    # Slightly elliptic, along an axis of its own.
    stretch = draws.uniform(0.88, 1.14)
    body = _disc(along * stretch * radius, beside / stretch * radius, radius)
    strength = draws.triangular(14.0)
    stain = [strength + draws.triangular(20.0) for _ in range(3)]
    cytoplasm = [traits[c] + t for c, t in zip(("red", "green", "blue"), stain, strict=True)]
    _blend(canvas, body, cytoplasm)

    nucleus = _nucleus(along, beside, radius, traits, draws)
    nucleus *= body * np.minimum(traits["density"], 1)
    tone = draws.triangular(26.0)
    _blend(canvas, nucleus, [c + tone + t for c, t in zip(_NUCLEUS, stain, strict=True)])
    _add_granules(canvas, body, nucleus, traits, draws)


def _nucleus(
    along: Plane, beside: Plane, radius: Column, traits: dict[str, Column], draws: _Draws
) -> Plane:
    """Union of four discs; coordinates in cell radii."""
    step, bend, gap = traits["step"], traits["bend"], traits["gap"]
    cover = np.zeros_like(along)
    # The mean of the lobes' offsets along the parabola, to keep the nucleus in the cell.
    middle = bend * np.float32(1.25) * step * step
    for place in (-1.5, -0.5, 0.5, 1.5):
        u = step * np.float32(place) + gap * np.float32(0.5 if place > 0 else -0.5)
        v = bend * u * u - middle + traits["shift"]
        u, v = u + draws.triangular(0.06), v + draws.triangular(0.06)
        size = traits["lobe"] * draws.uniform(0.88, 1.12)
        disc = _disc((along - u) * radius, (beside - v) * radius, size * radius)
        cover = np.maximum(cover, disc)
    return cover


def _add_granules(
    canvas: list[Plane], body: Plane, nucleus: Plane, traits: dict[str, Column], draws: _Draws
) -> None:
    """Zero-mean grain inside the cell: its mean colour gives no granule away."""
    fine = draws.uniform(-1.0, 1.0, SIDE, SIDE)
    # Four neighbours' mean has half the deviation; doubled, coarse grain is as strong as fine.
    coarse = _pair(_pair(fine, 1), 2) * np.float32(0.5)
    mix = np.clip(traits["coarseness"], 0, 1)
    grain = (fine * (1 - mix) + coarse * mix) * traits["granules"] * body
    grain = grain * (1 - nucleus * np.float32(0.5))
    warm = np.clip(traits["warmth"], 0, 1)
    # Dark granules take all colours away, pink ones take green and blue.
    for plane, dark, pink in zip(canvas, (1.0, 1.0, 0.6), (0.45, 1.3, 0.9), strict=True):
        plane += grain * (np.float32(dark) * (1 - warm) + np.float32(pink) * warm)


def _pair(plane: Plane, axis: int) -> Plane:
    result: Plane = plane + np.roll(plane, 1, axis)
    return result


def _photograph(canvas: list[Plane], draws: _Draws) -> UInt8[np.ndarray, "images 28 28 3"]:
    """Uneven light, a colour cast, sensor noise; then 8 bits."""
    across, down = _grid()
    light = draws.triangular(0.10) + 1
    light = light + across * draws.triangular(0.006) + down * draws.triangular(0.006)
    pixels = np.empty((len(canvas[0]), SIDE, SIDE, 3), dtype=np.uint8)
    for channel, plane in enumerate(canvas):
        noise = draws.uniform(-5.0, 5.0, SIDE, SIDE)
        level = plane * (light + draws.triangular(0.06)) + noise
        pixels[..., channel] = np.clip(level + np.float32(0.5), 0, 255).astype(np.uint8)
    return pixels


def _blend(canvas: list[Plane], cover: Plane, colour: Sequence[np.ndarray]) -> None:
    for plane, level in zip(canvas, colour, strict=True):
        plane += (level - plane) * cover
