"""The run store: one folder per run, holding its record when finished, its checkpoint before.

    OUT/runs/ARM-kK-sSEED-PROFILE-DIGEST/record.json

and beside it the scores of every test image, which are judged by ``OUT/runs/labels``.
Finished runs may be gathered to be kept (``repro.runs.gathered``): both are read, and of a run
that is in both, its folder's record counts. Records are replaced whole and each run is locked while
it is worked on, so any number of processes may share a store. A record that cannot be read
(damaged, or of another version) counts as missing: it is left out of what is drawn, with a line
that says so, and its run is made again.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from repro.errors import InputError
from repro.files import exclusive, remove_parts, writable_folder, write_whole
from repro.runs import gathered, scores
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
        kept = gathered.place_of(self.runs, run_id)
        source = path if path.exists() else dict(gathered.lines(kept) if kept else ()).get(run_id)
        try:
            return None if source is None else self._read(run_id, source)
        except InputError:
            return None  # whoever asks for this run makes it again

    def save(
        self, record: RunRecord, logits: np.ndarray | None = None, *, labels: bool = False
    ) -> Path:
        """logits: (test images, classes) of the last round, kept beside the record; labels: as of
        ``scores.pack``."""
        folder = self.folder(record.run_id)
        if logits is not None:  # first, so that a record on disk is a run that lacks nothing
            write_whole(folder / scores.NAME, scores.pack(logits, labels=labels))
        path = folder / "record.json"
        write_whole(path, json.dumps(record.as_dict(), indent=1, allow_nan=True) + "\n")
        return path

    def scores(self, run_id: str) -> np.ndarray | None:
        """The run's (test images, classes) logits, up to a constant a row; None if not kept."""
        path = self.folder(run_id) / scores.NAME
        return scores.unpack(path.read_bytes()) if path.exists() else None

    def save_labels(self, fingerprint: str, labels: np.ndarray) -> None:
        """Labels of a data set's whole test split, once for all its runs."""
        path = self._labels(fingerprint)
        if not path.exists():
            write_whole(path, scores.pack_labels(labels))

    def labels(self, fingerprint: str) -> np.ndarray | None:
        """The test split's (images,) labels; None where they were not kept."""
        path = self._labels(fingerprint)
        return scores.unpack_labels(path.read_bytes()) if path.exists() else None

    def _labels(self, fingerprint: str) -> Path:
        return self.runs / "labels" / f"{fingerprint}.npy.gz"

    def all(self) -> list[RunRecord]:
        """Every finished run, ordered by its id; one line on stderr for each unreadable one."""
        found: dict[str, Path | bytes] = {}
        for path in self.runs.glob("*/*.jsonl"):
            found.update(gathered.lines(path))
        found |= {path.parent.name: path for path in self.runs.glob("*/record.json")}
        read = (self._read_or_warn(run_id, found[run_id]) for run_id in sorted(found))
        return [record for record in read if record is not None]

    def gather(self) -> list[Path]:
        """Move every finished run out of its folder: see ``repro.runs.gathered.gather``.

        One that cannot be read stays, with the line on stderr that ``all`` has for it.
        """
        paths = sorted(self.runs.glob("*/record.json"))
        whole = [path for path in paths if self._read_or_warn(path.parent.name, path)]
        # As they are on disk, fields of other versions included.
        records = [json.loads(path.read_text(encoding="utf-8")) for path in whole]
        return gathered.gather(self.runs, records)

    @staticmethod
    def _read(run_id: str, source: Path | bytes) -> RunRecord:
        """The record; ``InputError``, naming the run, for one that is damaged or of another run."""
        try:
            content = source if isinstance(source, bytes) else source.read_bytes()
            record = RunRecord.from_dict(json.loads(content.decode("utf-8")))
        except InputError as problem:
            raise InputError(f"record of run {run_id}", problem.value, problem.expected) from None
        except (OSError, ValueError, RecursionError) as problem:
            name = type(problem).__name__
            raise InputError(f"record of run {run_id}", name, "readable JSON") from problem
        if record.run_id != run_id:
            raise InputError(f"record of run {run_id}", record.run_id, "that run's own")
        return record

    def _read_or_warn(self, run_id: str, source: Path | bytes) -> RunRecord | None:
        try:
            return self._read(run_id, source)
        except InputError as problem:
            again = self._how_to_repeat(run_id)
            print(f"left out: {problem}; {again}", file=sys.stderr, flush=True)
            return None

    def _how_to_repeat(self, run_id: str) -> str:
        parts = gathered.parts_of(run_id)
        command = "the command that made it makes it again"
        if parts is None or parts[2] == "os":
            return command
        arm, hospitals, seed, profile = parts
        return (
            f"{command}, e.g. `repro run {arm} --hospitals {hospitals} --seed {seed} "
            f"--profile {profile} --out {self.root}`"
        )
