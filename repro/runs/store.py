"""The run store: one folder per run, holding its record when finished, its checkpoint before.

    OUT/runs/ARM-kK-sSEED-PROFILE-DIGEST/record.json

Records are replaced whole and each run is locked while it is worked on, so any number of
processes may share a store. A record that cannot be read (damaged, or of another version) counts
as missing: it is left out of what is drawn, with a line that says so, and its run is made again.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import InputError
from repro.files import exclusive, remove_parts, writable_folder, write_whole
from repro.runs import scores
from repro.runs.record import RunRecord


class RunStore:
    """All runs below ``root``."""

    def __init__(self, root: str | Path, *, written: bool = True) -> None:
        """written: False for a store that is only read, which may lie in a read-only folder."""
        self.root = writable_folder("out", Path(root)) if written else Path(root)

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def folder(self, run_id: str) -> Path:
        return self.runs / run_id

    @contextlib.contextmanager
    def working_on(self, run_id: str) -> Iterator[Path]:
        """The run's folder, ours alone: a second process waits here until we are done."""
        folder = self.folder(run_id)
        with exclusive(folder / "lock"):
            remove_parts(folder)
            yield folder

    def load(self, run_id: str) -> RunRecord | None:
        """The finished run; None where there is none, or none that can be read."""
        path = self.folder(run_id) / "record.json"
        try:
            return self._read(path) if path.exists() else None
        except InputError:
            return None  # whoever asks for this run makes it again

    def save(self, record: RunRecord, logits: np.ndarray | None = None) -> Path:
        """logits: (test images, classes) of the last round, kept beside the record."""
        folder = self.folder(record.run_id)
        if logits is not None:  # first, so that a record on disk is a run that lacks nothing
            write_whole(folder / scores.NAME, scores.pack(logits))
        path = folder / "record.json"
        write_whole(path, json.dumps(record.as_dict(), indent=1, allow_nan=True) + "\n")
        return path

    def scores(self, run_id: str) -> np.ndarray | None:
        """The run's (test images, classes) logits, up to a constant a row; None if not kept."""
        path = self.folder(run_id) / scores.NAME
        return scores.unpack(path.read_bytes()) if path.exists() else None

    def all(self) -> list[RunRecord]:
        """Every finished run, ordered by its id; one line on stderr for each unreadable one."""
        paths = sorted(self.runs.glob("*/record.json"))
        return [record for record in map(self._read_or_warn, paths) if record is not None]

    def select(self, **wanted: Any) -> list[RunRecord]:
        """Finished runs whose attributes equal ``wanted``, e.g. ``arm="fedavg", hospitals=10``."""
        return [
            record
            for record in self.all()
            if all(getattr(record, name) == value for name, value in wanted.items())
        ]

    @staticmethod
    def _read(path: Path) -> RunRecord:
        """The record; ``InputError``, naming the run, for one that is damaged or of another run."""
        run_id = path.parent.name
        try:
            record = RunRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except InputError as problem:
            raise InputError(f"record of run {run_id}", problem.value, problem.expected) from None
        except (OSError, ValueError, RecursionError) as problem:
            name = type(problem).__name__
            raise InputError(f"record of run {run_id}", name, "readable JSON") from problem
        if record.run_id != run_id:
            raise InputError(f"record of run {run_id}", record.run_id, "that run's own")
        return record

    def _read_or_warn(self, path: Path) -> RunRecord | None:
        try:
            return self._read(path)
        except InputError as problem:
            again = self._how_to_repeat(path.parent.name)
            print(f"left out: {problem}; {again}", file=sys.stderr, flush=True)
            return None

    def _how_to_repeat(self, run_id: str) -> str:
        parts = re.fullmatch(r"(.+)-k(\d+)-s(\d+)-(.+)-[0-9a-f]+", run_id)
        command = "the command that made it makes it again"
        if parts is None:
            return command
        arm, hospitals, seed, profile = parts.groups()
        return (
            f"{command}, e.g. `repro run {arm} --hospitals {hospitals} --seed {seed} "
            f"--profile {profile} --out {self.root}`"
        )
