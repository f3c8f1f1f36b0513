"""Which code made a record, on which machine: version, sources' fingerprint, commit, device."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repro.version import __version__


@functools.cache
def code_version() -> dict[str, Any]:
    """``fingerprint`` covers every .py file of the package and the profiles; ``commit`` is None
    outside git."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    # Named apart: in a checkout ``repro/kernels`` is a link, which ``rglob`` does not follow.
    written = {*root.glob("repro/**/*.py"), *root.glob("repro/kernels/*.py")}
    for path in sorted(written | {root / "repro/runs/profiles.toml"}):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return {"version": __version__, "fingerprint": digest.hexdigest()[:16], "commit": _commit(root)}


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def environment(packages: Sequence[str] = ("torch", "numpy")) -> dict[str, Any]:
    """Device and versions a figure must be quoted with. Imports torch only if it is loaded."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "platform": platform.system() + " " + platform.machine(),
        "python": platform.python_version(),
    }
    for package in packages:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # noqa: PERF203
            facts[package] = None
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        facts["cuda_device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return facts


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
