"""A TLS context that follows its files: a renewed certificate is taken up without a restart."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cryptography import x509

from repro.errors import InputError
from repro.secagg.transport.quiet import Once, Report

WARNED_BEFORE = datetime.timedelta(days=30)
_DAY = 86400.0


@runtime_checkable
class Wraps(Protocol):
    """What connections need of a TLS context: an ``ssl.SSLContext``, or one that follows files."""

    def wrap_socket(self, sock: socket.socket, *args: Any, **named: Any) -> ssl.SSLSocket: ...


class FollowedContext:
    """The newest context that its files have given; connections that are there stay as they are.

    make: builds a context from the files, InputError while they are not right; called at once,
    and again at the next connection after one of them has changed. If that fails the context
    before stays in use. report: told of a change, of one that failed, and, at the start and once a
    day, of a certificate that expires within 30 days. Safe to share among threads.
    """

    def __init__(
        self, make: Callable[[], ssl.SSLContext], files: Sequence[Path], report: Report
    ) -> None:
        self._make, self._files, self._report = make, tuple(files), report
        self._failed, self._lock = Once(report), threading.Lock()
        self._stamps = [_stamp(path) for path in self._files]
        self._context = make()
        self._warn()

    def wrap_socket(self, sock: socket.socket, *args: Any, **named: Any) -> ssl.SSLSocket:
        """As ``ssl.SSLContext.wrap_socket``."""
        return self.current().wrap_socket(sock, *args, **named)

    def current(self) -> ssl.SSLContext:
        with self._lock:
            stamps = [_stamp(path) for path in self._files]
            if stamps != self._stamps:
                try:
                    self._context, self._stamps = self._make(), stamps
                except InputError as problem:  # half-copied, or a certificate without its key yet
                    self._failed(f"the certificates before stay in use: {problem}")
                else:
                    self._report("new certificates are in use")
                    self._warn()
            elif time.monotonic() > self._warned + _DAY:
                self._warn()
            return self._context

    def _warn(self) -> None:
        self._warned = time.monotonic()
        now = datetime.datetime.now(datetime.timezone.utc)
        for path in self._files:
            left = expiry(path) - now
            if left < WARNED_BEFORE:
                self._report(f"{path} expires in {left.days} days, on {now + left:%Y-%m-%d}")


def _stamp(path: Path) -> tuple[int, int] | None:
    """What tells that a file has changed; None while it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def expiry(path: Path) -> datetime.datetime:
    """When the certificate in a PEM file expires: of a chain the first, of several authorities
    the first to go. The far future for a file without one, such as a key."""
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)
    return min(one.not_valid_after_utc for one in certificates)
