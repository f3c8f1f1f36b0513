"""Draw one item, or only those that are missing or out of date.

An item's files are current when they are the very bytes that were written and everything they
were drawn from is unchanged: the runs, the claims, the side files and the drawing code itself.
What was drawn is noted in ``OUT/.drawn/NAME.json``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from repro.errors import InputError
from repro.results.claims import PAPER_RESULTS, Claims, load_claims
from repro.results.evidence import Evidence, gather
from repro.results.files import write_whole
from repro.results.store import RunStore

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Sources:
    """All that tables, figures and the report may read."""

    out: Path
    evidence: Evidence
    claims: Claims

    @classmethod
    def of(
        cls,
        out: str | Path,
        *,
        runs: str | Path | None = None,
        profile: str | None = None,
        fingerprint: str | None = None,
    ) -> Sources:
        """out: where things are drawn; runs: the store's root where it is another folder."""
        evidence = gather(RunStore(out if runs is None else runs), profile, fingerprint)
        return cls(Path(out), evidence, load_claims())

    def side(self, name: str) -> dict[str, Any] | None:
        """A JSON file beside the runs, e.g. ``partition/k10`` or ``bench/secagg``; or None."""
        path = self.out / f"{name}.json"
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as problem:
            raise InputError(path.name, str(path), f"JSON ({problem}); delete it") from problem
        return dict(content)

    @cached_property
    def digest(self) -> str:
        """Changes whenever anything that could be drawn changes, and only then."""
        state = hashlib.sha256()
        for record in self.evidence.records:
            state.update(json.dumps(record.stable(), sort_keys=True).encode())
        state.update(self.evidence.profile.encode())
        files = [PAPER_RESULTS / "claims.toml", *self.out.glob("models.json")]
        for folder in ("bench", "partition"):
            files += sorted((self.out / folder).glob("*.json"))
        for package in ("results", "experiments", "privacy/accounting"):
            files += sorted((PACKAGE / package).rglob("*.py"))
        for path in files:
            state.update(path.name.encode() + path.read_bytes())
        state.update(importlib.metadata.version("matplotlib").encode())
        return state.hexdigest()[:16]


def is_current(out: Path, name: str, inputs: str) -> bool:
    """Were all files of item ``name`` drawn from ``inputs``, and are they still there unchanged?"""
    note = _note(out, name)
    if not note.exists():
        return False
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return noted.get("inputs") == inputs and all(
        (out / file).exists() and _hash(out / file) == digest
        for file, digest in noted.get("files", {}).items()
    )


def mark_current(out: Path, name: str, inputs: str, paths: Sequence[Path]) -> None:
    files = {path.relative_to(out).as_posix(): _hash(path) for path in sorted(paths)}
    write_whole(_note(out, name), json.dumps({"inputs": inputs, "files": files}, indent=1) + "\n")


def noted_paths(out: Path, name: str) -> list[Path]:
    """The files of an item that was drawn before."""
    noted = json.loads(_note(out, name).read_text(encoding="utf-8"))
    return [out / file for file in noted["files"]]


def _note(out: Path, name: str) -> Path:
    return out / ".drawn" / f"{name}.json"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
