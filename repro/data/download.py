"""MedMNIST's download: whole and with the right md5, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import urllib.request
from pathlib import Path

from repro.data.catalog import CatalogEntry
from repro.progress import Progress, progress

TIMEOUT_SECONDS = 8.0  # per connection attempt and per read: offline must be found out fast
_BLOCK = 1 << 18


class DownloadFailed(Exception):
    """Why there is no file, in a few words."""


def download(entry: CatalogEntry, target: Path, *, timeout: float = TIMEOUT_SECONDS) -> None:
    """Fetch the official file of ``entry`` to ``target``, with a progress bar on stderr.

    The bytes go to a temporary name beside ``target`` and take its name only when their md5
    is the catalog's, so other processes see a whole file or none. Folders are made only once
    the server has answered. Raises DownloadFailed, and then leaves nothing behind.
    """
    made: list[Path] = []
    try:
        with urllib.request.urlopen(entry.url, timeout=timeout) as response:
            made = _make_folders(target.parent)
            _fetch(response, entry, target)
    except (OSError, http.client.HTTPException) as error:
        _remove_empty(made)
        reason = getattr(error, "reason", None) or error
        raise DownloadFailed(f"download failed: {reason}") from error
    except BaseException:
        _remove_empty(made)
        raise


def _fetch(response: http.client.HTTPResponse, entry: CatalogEntry, target: Path) -> None:
    length = int(response.headers.get("Content-Length") or 0) or None
    handle, temporary = tempfile.mkstemp(
        prefix=f".{entry.name}-", suffix=".part", dir=target.parent
    )
    try:
        md5 = hashlib.md5(usedforsecurity=False)
        bar: Progress[None] = progress(total=length, unit="B", desc=f"{entry.title} download")
        with os.fdopen(handle, "wb") as file, bar:
            while block := response.read(_BLOCK):
                file.write(block)
                md5.update(block)
                bar.update(len(block))
        if md5.hexdigest() != entry.md5:
            raise DownloadFailed(f"download has md5 {md5.hexdigest()}, not {entry.md5}")
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _make_folders(folder: Path) -> list[Path]:
    """Make ``folder``; returns those that did not exist, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # another process may have put something there
            folder.rmdir()
