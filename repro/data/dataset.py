"""A loaded data set: the arrays, and the name that stands under everything drawn from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from repro.data.catalog import SPLITS
from repro.shapes import Int64, UInt8

Origin = Literal["official", "rebuilt", "file", "synthetic"]


@dataclass(frozen=True, eq=False)
class Split:
    """Records of one split: ``images`` (N, S, S, C) uint8, ``labels`` (N,) int64: the class; or
    (N, L) of 0 and 1, where an image may have none or several of L labels."""

    images: UInt8[np.ndarray, "records side side channels"]
    labels: Int64[np.ndarray, "records ..."]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train, validation and test records, and where they come from.

    origin: ``official`` (the file's md5 is MedMNIST's), ``rebuilt`` (a known rebuilding of
        BloodMNIST), ``file`` (any other file) or ``synthetic``.
    md5: of the file; of the generated arrays for the synthetic stand-in.
    published: is it MedMNIST's own set or the stand-in because that was asked for, and not because
        somebody's file turned out to be it? Then saying which it is tells nothing about a record.
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
    published: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Do images have any number of labels, instead of one class each?"""
        return self.train.labels.ndim == 2

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

    def caption(self, *, private: bool = False) -> str:
        """The line that goes under every table and figure; private: see ``facts``."""
        if private and not self.published:
            return f"Data: {self._unnamed}."
        line = f"Data: {self.source}, md5 {self.md5}."
        if self.synthetic:
            line += " Drawn by a program: its accuracies say nothing about real cells."
        return line

    def facts(self, *, private: bool = False) -> dict[str, Any]:
        """What a run's record says about its data (the JSON key ``dataset``).

        private: leave out whatever is a function of the train and validation records, which only
        an ε may speak of. A file that happens to be the official one is such a function too.
        """
        told = self.published or not private
        return {
            "name": self.name,
            "source": self.source if told else self._unnamed,
            "official": self.official and told,
            "md5": self.md5 if told else None,
            "fingerprint": None if private else self.fingerprint,
        }

    @property
    def _unnamed(self) -> str:
        return f"a file with {self.title}'s arrays; which one, a private run does not say"

    @cached_property
    def public_fingerprint(self) -> str:
        """32 hex digits naming what is public: the facts of a private run, how many images the
        train split has, and the test split, which is public data. No other record is read."""
        known = (self.facts(private=True), self.class_names, self.train.images.shape)
        digest = hashlib.blake2b(repr(known).encode(), digest_size=16)
        _update(digest, "test", self.test)
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits naming the contents: the same arrays from another container agree."""
        digest = hashlib.blake2b(repr((self.name, self.class_names)).encode(), digest_size=16)
        for name in SPLITS:
            _update(digest, name, getattr(self, name))
        return digest.hexdigest()


def _update(digest: hashlib.blake2b, name: str, split: Split) -> None:
    digest.update(f"{name}{split.images.shape}".encode())
    digest.update(split.images.tobytes())
    digest.update(split.labels.astype("<i8").tobytes())
