"""A hospital over many rounds: it finds the open round, takes part once, and comes back.

Everything that must survive the process lies in its state folder: the counter of rounds begun,
the last directory accepted, the log. Killed at any moment and started again, it takes part in
the next round; nothing is sent twice under one round's number.
"""

from __future__ import annotations

import random
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from repro.errors import InputError
from repro.secagg.deploy.announcement import Announcement, max_announcement_bytes
from repro.secagg.deploy.counter import FileCounter, open_counter
from repro.secagg.deploy.directory import FederationDirectory
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import Place
from repro.secagg.deploy.transcript import Transcript, open_transcript
from repro.secagg.errors import Refused
from repro.secagg.hospital import Hospital
from repro.secagg.keys import SIGNATURE_BYTES
from repro.secagg.messages import HEADER_BYTES, Buffer, Survivors, Unmask
from repro.secagg.rounds import Round
from repro.secagg.transport.tcp_hospital import connect, converse
from repro.secagg.transport.wire import Deadline, receive_frame

Report = Callable[[str], None]
# The round announced -> the hospital's (dimension,) float32 or float64 vector and its weight.
Contribution = Callable[[Announcement], tuple[np.ndarray, int]]
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
    contribution: Contribution,
    *,
    rounds: int | None = None,
    patience: float | None = None,
    report: Report = lambda line: None,
) -> int:
    """Take part until ``rounds`` have been completed (None: for ever); how many were.

    patience: seconds without a completed round after which TimeoutError is raised (None: none).
    Raises InputError for files that are not right.
    """
    identity = load_identity(place.key)
    with (
        open_counter(place.state / "rounds.json", place.missed) as counter,
        open_transcript(place.state / "transcript.log", identity) as log,
    ):
        member = _Member(place, server, contribution, counter, log, report)
        return member.run(rounds, patience)


class _Member:
    def __init__(
        self,
        place: Place,
        server: Server,
        contribution: Contribution,
        counter: FileCounter,
        log: Transcript,
        report: Report,
    ) -> None:
        self._server, self._report = server, report
        self._identity = load_identity(place.key)
        self._pinned, self._counter, self._log = place.pinned(), counter, log
        self._contribution = contribution
        self._prepared: tuple[Announcement, np.ndarray, int] | None = None

    def run(self, rounds: int | None, patience: float | None) -> int:
        completed, failures, since = 0, 0, time.monotonic()
        while rounds is None or completed < rounds:
            try:
                ended = self._attempt()
            except (OSError, Refused) as reason:
                ended = False
                self._report(f"trying again soon: {reason}")
            if ended:
                completed, failures, since = completed + 1, 0, time.monotonic()
                continue
            if patience is not None and time.monotonic() > since + patience:
                raise TimeoutError(f"no round was completed in {patience:g} s")
            failures += 1
            # A random part, so that hospitals do not all come back in the same moment.
            time.sleep(min(2.0, 0.1 * 2 ** min(failures, 5)) * (0.5 + random.random() / 2))
        return completed

    def _attempt(self) -> bool:
        """One connection; whether a round was completed on it."""
        directory = self._pinned.current()
        me = self._own_id(directory)
        server = self._server
        connection = connect(
            (server.host, server.port),
            timeout=10.0,
            tls=server.tls,
            server_name=server.server_name,
        )
        with connection:
            announcement = self._listen(connection, directory)
            arrived = time.monotonic()
            vector, weight = self._prepare(announcement)
            if time.monotonic() > arrived + _STALE:
                return False  # the server has long given this connection up
            self._take_part(connection, directory, me, announcement, vector, weight)
        self._prepared = None
        return True

    def _listen(self, connection: socket.socket, directory: FederationDirectory) -> Announcement:
        limit = max_announcement_bytes(directory.settings.dimension)
        raw = receive_frame(connection, limit, Deadline(self._server.wait))
        announcement = Announcement.from_bytes(raw, directory.server)
        if announcement.digest != directory.digest or announcement.session != directory.session:
            raise Refused(
                f"the server goes by another directory than this one of serial {directory.serial}"
            )
        return announcement

    def _prepare(self, announcement: Announcement) -> tuple[np.ndarray, int]:
        """The contribution to the round announced, made once."""
        last = self._counter.last(announcement.session)
        if announcement.number <= last:
            raise Refused(f"round {announcement.number} is open, and was begun before; waiting")
        if self._prepared is None or self._prepared[0] != announcement:
            self._report(f"round {announcement.number}: making the vector")
            self._prepared = (announcement, *self._contribution(announcement))
        return self._prepared[1:]

    def _take_part(
        self,
        connection: socket.socket,
        directory: FederationDirectory,
        me: int,
        announcement: Announcement,
        vector: np.ndarray,
        weight: int,
    ) -> None:
        round_ = directory.round(announcement.number)
        encoded = directory.encoding.encode(vector, weight, secrets.randbits(64))
        # Durable first: whatever happens from here on, this number is not used again.
        self._counter.advance(round_.session, round_.number)
        self._log.append("begun", session=round_.session.hex(), round=round_.number)
        hospital = Hospital(me, self._identity, round_)
        witness = Witness(self._log, round_, me)
        self._report(f"round {round_.number}: taking part as hospital {me}")
        converse(connection, hospital, lambda: encoded, timeout=self._server.wait, observe=witness)
        self._log.append("done", round=round_.number)
        self._log.sync()
        self._report(f"round {round_.number}: done")

    def _own_id(self, directory: FederationDirectory) -> int:
        for one, public in directory.hospitals.items():
            if public == self._identity.public:
                return one
        gone = self._identity.public in directory.revoked
        expected = "a key that has not been revoked" if gone else "a key that the directory lists"
        raise InputError("key", self._identity.public.hex(), expected)


class Witness:
    """Notes a hospital's messages in its log, and whose secrets it gave shares of."""

    def __init__(self, log: Transcript, round_: Round, hospital: int) -> None:
        self._log, self._round, self._hospital = log, round_, hospital
        self._survivors: frozenset[int] = frozenset()

    def __call__(self, way: str, phase: str, message: Buffer) -> None:
        direction = "up" if way == "sent" else "down"
        self._log.message(way, direction, self._round, phase, self._hospital, message)
        payload = memoryview(message)[HEADER_BYTES:-SIGNATURE_BYTES]
        if (way, phase) == ("received", "consistency"):
            told = Survivors.from_bytes(payload, self._round.bitmap_bytes)
            self._survivors = self._round.from_bitmap(told.survivors)
        elif (way, phase) == ("sent", "unmask"):
            owners = {owner for owner, _ in Unmask.from_bytes(payload).shares}
            self._log.append(
                "opened secrets",
                session=self._round.session.hex(),
                round=self._round.number,
                self_masks=sorted(owners & self._survivors),
                mask_keys=sorted(owners - self._survivors),
            )
