"""Byte-identical images: stored twice, in two splits, or held by two hospitals.

A ledger states ε for one stored record. An image stored twice is two records: whoever adds or
removes it changes both, and what is spent on it is spent by every holder.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from repro.data.catalog import SPLITS
from repro.data.dataset import Dataset
from repro.shapes import UInt8

# In place of ``SharedImages.warning`` where nothing may be said of the records there are.
COPIES = (
    "the ε of an image that is stored more than once is the sum over its copies, of their holders' "
    "ε, not the ε stated for one record; whether there is one is not said, for no ε covers that"
)
Images = UInt8[np.ndarray, "records side side channels"]
Place = tuple[str, int]  # split, position in it


@dataclass(frozen=True)
class Duplicates:
    """Counts of different images (not of copies) that are stored more than once."""

    images: int  # anywhere
    train_and_test: int  # learned from and tested on
    train_and_validation: int  # in the file's train and val splits
    other_labels: int  # whose copies have different labels


@dataclass(frozen=True)
class SharedImages:
    """Images with more than one copy among the hospitals' records."""

    in_several_hospitals: int  # different images held by two hospitals or more
    most_hospitals: int  # holders of one image; 1 where every image has one holder
    most_copies: int  # of one image, in all hospitals together

    def warning(self) -> str | None:
        """What this means for a ledger's ε of one record; None where every image is stored once."""
        if self.most_copies < 2:
            return None
        spread = f"{self.in_several_hospitals} of them in two hospitals or more"
        return (
            f"some images are stored up to {self.most_copies} times ({spread}): the ε of such an "
            "image is the sum over its copies, of their holders' ε, not the ε stated for one record"
        )


def find_duplicates(dataset: Dataset) -> Duplicates:
    """Count a data set's images that are stored more than once, by all three splits."""
    places: dict[bytes, list[Place]] = defaultdict(list)
    for name in SPLITS:
        for position, key in enumerate(hashes(getattr(dataset, name).images)):
            places[key].append((name, position))
    several = [found for found in places.values() if len(found) > 1]
    splits = [{name for name, _ in found} for found in several]
    labels = [
        {getattr(dataset, name).labels[position].tobytes() for name, position in found}
        for found in several
    ]
    return Duplicates(
        images=len(several),
        train_and_test=sum({"train", "test"} <= names for names in splits),
        train_and_validation=sum({"train", "val"} <= names for names in splits),
        other_labels=sum(len(found) > 1 for found in labels),
    )


def shared_images(
    images: Images, holders: Mapping[int, Sequence[int] | np.ndarray]
) -> SharedImages:
    """What hospitals hold in common.

    images (N, S, S, C): of the train split; holders: hospital → positions of its records.
    """
    keys = hashes(images)
    held: dict[bytes, list[int]] = defaultdict(list)
    for hospital, positions in holders.items():
        for position in positions:
            held[keys[int(position)]].append(hospital)
    counts = [(len(set(found)), len(found)) for found in held.values()]
    return SharedImages(
        in_several_hospitals=sum(hospitals > 1 for hospitals, _ in counts),
        most_hospitals=max((hospitals for hospitals, _ in counts), default=0),
        most_copies=max((copies for _, copies in counts), default=0),
    )


def hashes(images: Images) -> list[bytes]:
    """BLAKE2b (128 bits) of every image's bytes, in order."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def duplicate_facts(
    dataset: Dataset, images: Images, holders: Mapping[int, Sequence[int] | np.ndarray]
) -> dict[str, Any]:
    """What a run's record says: of the whole file, and of the hospitals' training records."""
    return {
        "stored": asdict(find_duplicates(dataset)),
        "held": asdict(shared_images(images, holders)),
    }
