"""Draw an item only when it is missing or what it may be drawn from has changed.

The note ``OUT/.drawn/NAME.json`` keeps the digest of the sources and of each file written. An
item is current when its files are the very bytes that were written, the sources have the same
digest, and the drawing code is the same.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from repro.files import write_whole

PACKAGE = Path(__file__).resolve().parents[1]
WRITTEN = (".py", ".html", ".css", ".md", ".toml")  # modules, templates, data
CODE = ("report", "ablations", "accounting", "runs", "files.py", "formatting.py")


def is_current(out: Path, name: str, sources: str) -> bool:
    """Are all files of ``name`` there unchanged, drawn from sources of this digest?"""
    noted = _read_note(out, name)
    return (
        noted is not None
        and noted["code"] == code_digest()
        and noted["sources"] == sources
        and all(
            (out / file).exists() and _hash((out / file).read_bytes()) == digest
            for file, digest in noted["files"].items()
        )
    )


def mark_current(out: Path, name: str, sources: str, paths: Iterable[Path]) -> None:
    """Note that ``paths`` were drawn from sources of this digest."""
    files = {path.relative_to(out).as_posix(): _hash(path.read_bytes()) for path in sorted(paths)}
    note = {"code": code_digest(), "sources": sources, "files": files}
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
        written = [root] if root.suffix else sorted(root.rglob("*.*"))
        for path in (path for path in written if path.suffix in WRITTEN):
            state.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return state.hexdigest()[:16]


def _read_note(out: Path, name: str) -> dict[str, Any] | None:
    """The note, or None where there is none that can be used: then the item is drawn again."""
    try:
        noted = json.loads(_note(out, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(noted, dict) and isinstance(noted.get("files"), dict)
    return noted if whole and {"code", "sources"} <= noted.keys() else None


def _note(out: Path, name: str) -> Path:
    return out / ".drawn" / f"{name}.json"


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
