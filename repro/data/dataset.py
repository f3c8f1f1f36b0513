"""A loaded data set: the arrays, and the name that stands under everything drawn from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from repro.data.catalog import SPLITS
from repro.typing import Int64, UInt8

Origin = Literal["official", "rebuilt", "file", "synthetic"]


@dataclass(frozen=True, eq=False)
class Split:
    """Records of one split: ``images`` (N, 28, 28, C) uint8, ``labels`` (N,) int64."""

    images: UInt8[np.ndarray, "records 28 28 channels"]
    labels: Int64[np.ndarray, " records"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test records, and where they come from.

    origin: ``official`` (the file's md5 is MedMNIST's), ``rebuilt`` (a known rebuilding of
        BloodMNIST), ``file`` (any other file) or ``synthetic``.
    md5: of the file; of the generated arrays for the synthetic stand-in.
    No path is kept: records of runs must not depend on a machine's folders.
    """

    name: str
    title: str
    origin: Origin
    md5: str
    class_names: tuple[str, ...]
    channels: int
    train: Split
    val: Split
    test: Split

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def official(self) -> bool:
        """True only for MedMNIST's own file, byte for byte."""
        return self.origin == "official"

    @property
    def synthetic(self) -> bool:
        return self.origin == "synthetic"

    @property
    def source(self) -> str:
        """One short phrase, e.g. ``official BloodMNIST file``."""
        return {
            "official": f"official {self.title} file",
            "rebuilt": f"{self.title} rebuilt from its source images (not the official file;"
            " split membership differs)",
            "file": f"a file that is not the official {self.title}",
            "synthetic": f"synthetic stand-in, not {self.title}",
        }[self.origin]

    def caption(self) -> str:
        """The line that goes under every table and figure."""
        line = f"Data: {self.source}, md5 {self.md5}."
        if self.synthetic:
            line += " Drawn by a program: its accuracies say nothing about real cells."
        return line

    def facts(self) -> dict[str, Any]:
        """What a run's record says about its data (the JSON key ``dataset``)."""
        return {
            "name": self.name,
            "source": self.source,
            "official": self.official,
            "md5": self.md5,
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits naming the contents: the same arrays from another container agree."""
        digest = hashlib.blake2b(repr((self.name, self.class_names)).encode(), digest_size=16)
        for name in SPLITS:
            split: Split = getattr(self, name)
            digest.update(f"{name}{split.images.shape}".encode())
            digest.update(split.images.tobytes())
            digest.update(split.labels.astype("<i8").tobytes())
        return digest.hexdigest()
