"""The run store: one folder per run, holding its record when finished, its checkpoint before.

    OUT/runs/ARM-kK-sSEED-PROFILE-DIGEST/record.json

Records are replaced whole and each run is locked while it is worked on, so any number of
processes may share a store.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro.errors import InputError
from repro.results.files import exclusive, writable_folder, write_whole
from repro.results.record import RunRecord


class RunStore:
    """All runs below ``root``."""

    def __init__(self, root: str | Path) -> None:
        self.root = writable_folder("out", Path(root))

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
            yield folder

    def load(self, run_id: str) -> RunRecord | None:
        """The finished run, or None."""
        path = self.folder(run_id) / "record.json"
        return self._read(path) if path.exists() else None

    def save(self, record: RunRecord) -> Path:
        path = self.folder(record.run_id) / "record.json"
        write_whole(path, json.dumps(record.as_dict(), indent=1, allow_nan=True) + "\n")
        return path

    def all(self) -> list[RunRecord]:
        """Every finished run, ordered by its id."""
        return [self._read(path) for path in sorted(self.runs.glob("*/record.json"))]

    def select(self, **wanted: Any) -> list[RunRecord]:
        """Finished runs whose attributes equal ``wanted``, e.g. ``arm="fedavg", hospitals=10``."""
        return [
            record
            for record in self.all()
            if all(getattr(record, name) == value for name, value in wanted.items())
        ]

    @staticmethod
    def _read(path: Path) -> RunRecord:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise InputError(
                "run record", path.parent.name, f"readable JSON ({problem}); delete its folder"
            ) from problem
        return RunRecord.from_dict(data)
