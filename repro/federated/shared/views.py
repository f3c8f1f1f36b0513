"""Views of an image: the square's symmetries, quarter turns and mirror images.

A blood cell under the microscope has no up, no left and no handedness, so all eight are as good
images of it as the one on record. A record's views are averaged inside its loss *before* clipping
(augmentation multiplicity, De et al. 2022, arXiv 2204.13650, section 3.2), so they cost no privacy:
whatever its views, a record adds at most C.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repro.checks import check_count
from repro.errors import InputError
from repro.random import RootSeed, philox4x32
from repro.typing import Float, Int

SYMMETRIES = 8  # of the square: four turns, each mirrored or not
_MASK = 2**32 - 1


def symmetric_views(
    images: Float[Tensor, "b c h w"],
    records: Int[Tensor, " b"],
    views: int,
    *,
    seed: RootSeed,
    hospital: int,
    round: int,
    step: int,
) -> Float[Tensor, "b views c h w"]:
    """``views`` different symmetric copies of every image, drawn anew at every step.

    images: square ones (h = w); records: their numbers in the hospital, 0 … 2³¹ − 1.
    views: 1 to 8; with 8 they are all there are. Every set of so many is equally likely (to
        2⁻²⁷). What a record gets is a function of (seed, hospital, round, step, its number):
        the other records drawn beside it have no part in it.
    """
    views = check_count("views", views)
    if views > SYMMETRIES:
        raise InputError("views", views, f"an integer from 1 to {SYMMETRIES}")
    if images.shape[-1] != images.shape[-2]:
        raise InputError("images", tuple(images.shape), "square ones: views are quarter turns")
    key = seed.derive("symmetric views", hospital)
    words = _words(records.cpu().numpy(), key, round, step)
    # The order of eight random words is a uniformly random order of the symmetries.
    chosen = torch.from_numpy(words.argsort(axis=1, kind="stable")[:, :views])
    everything = torch.stack([symmetry(images, number) for number in range(SYMMETRIES)], dim=1)
    index = torch.arange(len(images), device=images.device).unsqueeze(1)
    result: Float[Tensor, "b views c h w"] = everything[index, chosen.to(images.device)]
    return result


def symmetry(images: Float[Tensor, "*batch c h w"], number: int) -> Float[Tensor, "*batch c h w"]:
    """Symmetry 0 (nothing) to 7: ``number`` mod 4 quarter turns, mirrored first from 4 on."""
    mirrored = images.flip(-1) if number >= 4 else images
    return torch.rot90(mirrored, number % 4, dims=(-2, -1))


def _words(records: np.ndarray, key: int, round: int, step: int) -> np.ndarray:
    """(b, 8) random 32-bit words; counter: (block of the record, 0, step, round)."""
    halves = []
    for block in range(2):
        first = 2 * records.astype(np.uint64) + np.uint64(block)
        one, two, three = (np.full_like(first, word & _MASK) for word in (0, step, round))
        words = philox4x32((first, one, two, three), (key & _MASK, key >> 32))
        halves.append(np.stack(words, axis=1))
    return np.concatenate(halves, axis=1)
