"""Files that are written whole or not at all, and TOML files that are read."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repro.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as problem:
        raise InputError(path.name, str(path), f"a readable TOML file ({problem})") from problem


def write_whole(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content`` atomically, surviving a crash at any moment.

    The temporary file lies beside the target (a rename across file systems is a copy), and both
    it and the folder are flushed before the function returns. Text is UTF-8 in any locale.
    """
    data = _utf8(content) if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _flush_folder(path.parent)


def remove_parts(folder: Path) -> None:
    """Remove what a kill in the middle of ``write_whole`` left in ``folder``, which nobody else
    writes to meanwhile."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def write_changed(path: Path, content: str) -> None:
    """As ``write_whole``, but a file that holds ``content`` already is left as it is."""
    try:
        if path.read_bytes() == _utf8(content):
            return
    except OSError:
        pass  # missing or unreadable: it is written
    write_whole(path, content)


def _utf8(text: str) -> bytes:
    """Bytes of a file name that are no text become ``\\udcff``, which JSON reads back as given."""
    return text.encode("utf-8", "backslashreplace")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; a second process waits. The system frees it if we die."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def writable_folder(field: str, path: Path) -> Path:
    """``path`` as a folder that can be written to, or one clear line. Creates nothing."""
    for existing in [path, *path.parents]:
        if existing.exists():
            if not existing.is_dir() or not os.access(existing, os.W_OK):
                raise InputError(field, str(path), "a folder that can be created and written to")
            break
    return path
