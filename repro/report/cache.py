"""Draw an item only when it is missing or something it was drawn from has changed.

While an item is drawn its sources note every question it asks of them (``watching``). The note
``OUT/.drawn/NAME.json`` keeps each question with a digest of its answer, and the files written. An
item is current when its files are the very bytes that were written, the same questions have the
same answers, and the drawing code is the same.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.errors import InputError
from repro.files import write_whole
from repro.report.claims import Claims, load_claims
from repro.report.evidence import Evidence, gather
from repro.runs.store import RunStore

PACKAGE = Path(__file__).resolve().parents[1]
CODE = ("report", "ablations", "accounting", "runs", "files.py")


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


def is_current(out: Path, name: str, answers: Callable[[str], str]) -> bool:
    """Are all files of ``name`` there unchanged, and is what they were drawn from?

    answers: question → digest of its answer now; asked only what the note says was asked.
    """
    noted = _read_note(out, name)
    return (
        noted is not None
        and noted["code"] == code_digest()
        and all(answers(question) == digest for question, digest in noted["inputs"].items())
        and all(
            (out / file).exists() and _hash((out / file).read_bytes()) == digest
            for file, digest in noted["files"].items()
        )
    )


def mark_current(out: Path, name: str, inputs: Mapping[str, str], paths: Iterable[Path]) -> None:
    """Note that ``paths`` were drawn from ``inputs``: question → digest of its answer."""
    files = {path.relative_to(out).as_posix(): _hash(path.read_bytes()) for path in sorted(paths)}
    note = {"code": code_digest(), "inputs": dict(sorted(inputs.items())), "files": files}
    write_whole(_note(out, name), json.dumps(note, indent=1) + "\n")


def noted_paths(out: Path, name: str) -> list[Path]:
    """The files of an item that was drawn before; empty without a readable note."""
    noted = _read_note(out, name)
    return [] if noted is None else [out / file for file in noted["files"]]


def digest_of(content: Any) -> str:
    """16 hex digits of anything JSON-able."""
    return _hash(json.dumps(content, sort_keys=True, default=str).encode())[:16]


@functools.cache
def code_digest() -> str:
    """Of all that decides how things are drawn, whatever they are drawn from."""
    state = hashlib.sha256(importlib.metadata.version("matplotlib").encode())
    for part in CODE:
        root = PACKAGE / part
        for path in [root] if root.suffix else sorted(root.rglob("*.py")):
            state.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return state.hexdigest()[:16]


def _read_note(out: Path, name: str) -> dict[str, Any] | None:
    """The note, or None where there is none that can be used: then the item is drawn again."""
    try:
        noted = json.loads(_note(out, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    parts: Sequence[str] = ("inputs", "files")
    whole = isinstance(noted, dict) and all(isinstance(noted.get(part), dict) for part in parts)
    return noted if whole and "code" in noted else None


def _note(out: Path, name: str) -> Path:
    return out / ".drawn" / f"{name}.json"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
