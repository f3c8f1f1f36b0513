"""Finished runs gathered to be kept: one record a line, ordered by id.

    OUT/runs/PROFILE/ARM.jsonl

A run that may be killed needs a folder of its own; hundreds of folders of one file each tell a
reader nothing. A line is the record's JSON as it was, and begins with the run's id.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from repro.files import write_whole

_FIRST = '{"run_id": "'
_NAME = re.compile(r"(.+)-k(\d+)-s(\d+|os)-(.+)-[0-9a-f]+")


def parts_of(run_id: str) -> tuple[str, str, str, str] | None:
    """(arm, hospitals, seed or "os", profile); None for a name that ``run_id`` did not make."""
    found = _NAME.fullmatch(run_id)
    return None if found is None else (found[1], found[2], found[3], found[4])


def place_of(runs: Path, run_id: str) -> Path | None:
    """The file in which the run's line is, if it has been gathered."""
    parts = parts_of(run_id)
    return None if parts is None else runs / parts[3] / f"{parts[0]}.jsonl"


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """(run's id, its JSON) of every line; for a line without an id, its place in its stead.

    path: a file of gathered runs, or one that is not there.
    """
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.splitlines(), start=1):
        first, _, rest = line.partition(_FIRST.encode())
        run_id = rest.partition(b'"')[0].decode("utf-8", "replace")
        named = not first and run_id
        yield run_id if named else f"in line {number} of {path.parent.name}/{path.name}", line


def gather(runs: Path, records: Iterable[dict[str, Any]]) -> list[Path]:
    """Move finished runs from their folders into the files above; returns the files written.

    records: whole ones, as read from ``runs/ID/record.json``. Of two of one id the folder's is
    the later. Nobody may be working in ``runs``. Killed between any two steps it can be done
    again: a folder's record goes only when its line is on disk. Whatever else is in the folder
    (scores, a checkpoint) stays.
    """
    changed: dict[Path, dict[str, bytes]] = {}
    moved = []
    for record in records:
        run_id = record["run_id"]
        path = place_of(runs, run_id)
        if path is None:
            continue  # a name of somebody's own: left where it is
        kept = changed.setdefault(path, dict(lines(path)))
        kept[run_id] = json.dumps({"run_id": run_id, **record}, allow_nan=True).encode()
        moved.append(runs / run_id)
    for path, kept in changed.items():
        write_whole(path, b"".join(kept[one] + b"\n" for one in sorted(kept)))
    for folder in moved:
        (folder / "record.json").unlink()
        (folder / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
    return sorted(changed)
