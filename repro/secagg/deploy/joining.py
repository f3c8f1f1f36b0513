"""A hospital over TCP: it finds the open round, takes part once, and comes back for the next."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from repro.checks import check_above_zero
from repro.errors import InputError
from repro.secagg.deploy.announcement import ANNOUNCEMENT_BYTES, WELCOME, Announcement
from repro.secagg.deploy.directory import FederationDirectory, RoundOf
from repro.secagg.deploy.member import Leaving, Member, Prepare, Report, open_member
from repro.secagg.deploy.place import Place
from repro.secagg.errors import Refused
from repro.secagg.transport.following import Wraps
from repro.secagg.transport.peers import CHALLENGE_BYTES
from repro.secagg.transport.quiet import Once
from repro.secagg.transport.tcp_hospital import connect, converse, listen
from repro.secagg.transport.wire import RATE, Deadline, send_frame

_STALE = 2.0  # seconds after which a connection is not introduced any more, but made anew
_LONGEST_WAIT = 3600.0  # seconds for one message, whatever the server says that it may take


@dataclass(frozen=True)
class Server:
    """How to reach the server. tls: a hospital's context, or one that follows its files; None only
    for tests on one machine.

    wait: seconds to wait for an open round on one connection, and for any one message (longer
    where the server has announced that its phases are); rate: bytes a second that it has to
    reach meanwhile. proxy: (host, port) of an HTTP proxy to go through by CONNECT, with TLS only.
    """

    host: str
    port: int
    tls: Wraps | None = None
    server_name: str | None = None
    wait: float = 120.0
    rate: float = RATE
    proxy: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        check_above_zero(self, "wait", "rate")
        if self.proxy is not None and self.tls is None:
            raise InputError("proxy", self.proxy, "TLS to the server behind it")


def join(
    place: Place,
    server: Server,
    prepare: Prepare,
    *,
    rounds: int | None = None,
    patience: float | None = None,
    report: Report = lambda line: None,
    closed: Callable[[Announcement], None] = lambda announcement: None,
    round_of: RoundOf = FederationDirectory.round,
    leaving: Leaving = lambda announcement: None,
) -> int:
    """Take part until ``rounds`` have been completed (None: until the server closes the
    session); how many were.

    prepare: called once for each round, with what is announced and its application's bytes (the
    model that the last sum has led to). What it raises costs this hospital the round. closed:
    called at the end with the last announcement, if the server closes the session. round_of,
    leaving: see ``open_member``.
    patience: seconds without a completed round after which TimeoutError is raised (None: none).
    Raises InputError for files that are not right.
    """
    completed, failures, since = 0, 0, time.monotonic()
    again = Once(report)
    with open_member(place, prepare, report, round_of=round_of, leaving=leaving) as member:
        while rounds is None or completed < rounds:
            try:
                ended: bool | None = _attempt(member, server)
            except _Closed as last:
                report("the server has closed the session")
                closed(last.announcement)
                return completed
            except (OSError, Refused) as reason:
                ended = False
                again(f"trying again soon: {reason}")
            if ended:
                completed, failures, since = completed + 1, 0, time.monotonic()
                continue
            if patience is not None and time.monotonic() > since + patience:
                raise TimeoutError(f"no round was completed in {patience:g} s")
            failures = 0 if ended is None else failures + 1
            # A random part, so that hospitals do not all come back in the same moment.
            time.sleep(min(2.0, 0.1 * 2 ** min(failures, 5)) * (0.5 + random.random() / 2))
    return completed


class _Closed(Exception):
    """No more rounds."""

    def __init__(self, announcement: Announcement) -> None:
        super().__init__()
        self.announcement = announcement


def _attempt(member: Member, server: Server) -> bool | None:
    """One connection; whether a round was completed on it. None: the vector is made, but the
    connection is too old for it."""
    directory = member.directory()
    connection = connect(
        (server.host, server.port),
        timeout=10.0,
        tls=server.tls,
        server_name=server.server_name,
        proxy=server.proxy,
    )
    with connection:
        announcement = _enter(connection, member, server, directory)
        if announcement.number == 0:
            raise _Closed(announcement)
        arrived = time.monotonic()
        member.prepare(announcement, directory)
        if time.monotonic() > arrived + _STALE:
            return None
        taking = member.begin(directory, announcement)
        converse(
            connection,
            taking.hospital,
            taking.give,
            timeout=max(server.wait, min(float(announcement.seconds), _LONGEST_WAIT)),
            rate=server.rate,
            observe=taking.witness,
        )
    member.finished(taking)
    return True


def _enter(
    connection: socket.socket, member: Member, server: Server, directory: FederationDirectory
) -> Announcement:
    """Say who this is; the round that is open, with its application."""
    greeting = listen(connection, ANNOUNCEMENT_BYTES + CHALLENGE_BYTES, Deadline(server.wait))
    announced, challenge = greeting[:ANNOUNCEMENT_BYTES], bytes(greeting[ANNOUNCEMENT_BYTES:])
    announcement = member.heard(announced, directory)
    stale = member.stale(announcement) if announcement.number else ""
    # Said in any case: what this hospital knows may tell the server that its state is lost.
    hello, wants = member.hello(announcement, announced, challenge, wanted=not stale)
    send_frame(connection, hello, Deadline(server.wait))
    length = announcement.length if wants else 0
    # A notice may come in the welcome's place: it is longer than one byte, and not long.
    limit = max(len(WELCOME) + length, 1024)
    try:
        welcome = listen(connection, limit, Deadline(server.wait, server.rate))
    except (OSError, Refused) as reason:
        raise Refused("; ".join(filter(None, (stale, str(reason))))) from None
    if stale:
        raise Refused(stale)
    if welcome[:1] != WELCOME or len(welcome) != len(WELCOME) + length:
        raise Refused("an answer to a hello that is no welcome")
    return member.informed(announcement, bytes(memoryview(welcome)[1:]) if wants else None)
