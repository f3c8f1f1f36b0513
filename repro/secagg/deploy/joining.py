"""A hospital over TCP: it finds the open round, takes part once, and comes back for the next."""

from __future__ import annotations

import random
import ssl
import time
from dataclasses import dataclass

from repro.secagg.deploy.announcement import max_announcement_bytes
from repro.secagg.deploy.member import Member, Prepare, Report, open_member
from repro.secagg.deploy.place import Place
from repro.secagg.errors import Refused
from repro.secagg.transport.tcp_hospital import connect, converse
from repro.secagg.transport.wire import Deadline, receive_frame

_STALE = 2.0  # seconds after which a connection is not introduced any more, but made anew


@dataclass(frozen=True)
class Server:
    """How to reach the server. tls: a hospital's context; None only for tests on one machine.

    wait: seconds to wait for an open round on one connection, and for any one message.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    wait: float = 120.0


def join(
    place: Place,
    server: Server,
    prepare: Prepare,
    *,
    rounds: int | None = None,
    patience: float | None = None,
    report: Report = lambda line: None,
) -> int:
    """Take part until ``rounds`` have been completed (None: for ever); how many were.

    patience: seconds without a completed round after which TimeoutError is raised (None: none).
    Raises InputError for files that are not right.
    """
    completed, failures, since = 0, 0, time.monotonic()
    with open_member(place, prepare, report) as member:
        while rounds is None or completed < rounds:
            try:
                ended = _attempt(member, server)
            except (OSError, Refused) as reason:
                ended = False
                report(f"trying again soon: {reason}")
            if ended:
                completed, failures, since = completed + 1, 0, time.monotonic()
                continue
            if patience is not None and time.monotonic() > since + patience:
                raise TimeoutError(f"no round was completed in {patience:g} s")
            failures += 1
            # A random part, so that hospitals do not all come back in the same moment.
            time.sleep(min(2.0, 0.1 * 2 ** min(failures, 5)) * (0.5 + random.random() / 2))
    return completed


def _attempt(member: Member, server: Server) -> bool:
    """One connection; whether a round was completed on it."""
    directory = member.directory()
    connection = connect(
        (server.host, server.port), timeout=10.0, tls=server.tls, server_name=server.server_name
    )
    with connection:
        limit = max_announcement_bytes(directory.settings.dimension)
        raw = receive_frame(connection, limit, Deadline(server.wait))
        arrived = time.monotonic()
        announcement = member.heard(raw, directory)
        member.prepare(announcement)
        if time.monotonic() > arrived + _STALE:
            return False  # the server has long given this connection up
        taking = member.begin(directory, announcement)
        converse(
            connection,
            taking.hospital,
            lambda: taking.contribution,
            timeout=server.wait,
            observe=taking.witness,
        )
    member.finished(taking)
    return True
