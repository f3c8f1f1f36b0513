"""Which code made a record: version, a fingerprint of the sources, the commit if there is one."""

from __future__ import annotations

import functools
import hashlib
import subprocess
from pathlib import Path
from typing import Any

from repro.version import __version__

_PACKAGES = ("repro", "kernels")


@functools.cache
def code_version() -> dict[str, Any]:
    """``fingerprint`` covers every .py file of the packages; ``commit`` is None outside git."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return {
        "version": __version__,
        "fingerprint": digest.hexdigest()[:16],
        "commit": _commit(root),
    }


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
