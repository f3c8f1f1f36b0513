"""Sums on disk: DIR/SESSION/round-NNNNNN.npy and .json, each whole, the JSON last.

SESSION is the first 8 hexadecimal digits of the session, in which rounds are numbered from 1: a
new session's round 1 takes nobody's place. Room for a round's files is taken before the round is
opened, so that a sum that hospitals have worked for does not find the folder missing, read-only
or full.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import InputError
from repro.files import write_whole

_JSON_ROOM = 1 << 16  # for the summary
_NPY_ROOM = 1 << 10  # for NumPy's header


class Results:
    """The folder of one server's sums."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reserve(self, session: bytes, dimension: int) -> None:
        """Take room for a mean of (dimension,) float64. InputError if there is none, or if
        nothing can be written here at all."""
        room = self._room(session)
        try:
            room.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(room, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _fill(descriptor, 8 * dimension + _NPY_ROOM + _JSON_ROOM)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as problem:
            expected = f"a folder with room for a round's sum ({problem.strerror})"
            raise InputError("results", str(self._folder), expected) from None

    def keep(
        self, session: bytes, number: int, mean: np.ndarray, summary: Mapping[str, Any]
    ) -> str:
        """Write a sum down in the room taken for it. Why that failed all the same; empty if not."""
        stem, array = self._room(session).with_name(f"round-{number:06d}"), io.BytesIO()
        np.save(array, mean)
        try:
            self.release(session)
            write_whole(stem.with_suffix(".npy"), array.getvalue())
            write_whole(stem.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
        except OSError as problem:
            return str(problem)
        return ""

    def release(self, session: bytes) -> None:
        """Give the room back."""
        with contextlib.suppress(OSError):
            self._room(session).unlink()

    def _room(self, session: bytes) -> Path:
        return self._folder / session.hex()[:8] / ".room"


def _fill(descriptor: int, size: int) -> None:
    """Make a file take ``size`` bytes of the disk."""
    allocate = getattr(os, "posix_fallocate", None)  # not on every system
    if allocate is not None:
        allocate(descriptor, 0, size)
        return
    for start in range(0, size, 1 << 20):
        os.pwrite(descriptor, bytes(min(1 << 20, size - start)), start)
