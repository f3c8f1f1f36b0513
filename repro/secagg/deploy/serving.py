"""The server over many rounds: announce, hold, decode, write the sum down, go on.

A round's number is on the disk before it is announced, so a server that was killed goes on with
the next one. Results are files, each written whole; its JSON comes last and says it is complete.
"""

from __future__ import annotations

import io
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from repro.errors import InputError
from repro.files import write_whole
from repro.secagg.deploy.announcement import APPLICATION_ROOM, Announcement
from repro.secagg.deploy.counter import FileCounter, open_counter
from repro.secagg.deploy.directory import FederationDirectory
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import Place
from repro.secagg.deploy.transcript import Transcript, open_transcript
from repro.secagg.errors import RoundFailed
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer
from repro.secagg.rounds import Round
from repro.secagg.simulation import Completed, Traffic
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.tcp_server import Observe, TcpServer

Report = Callable[[str], None]
_LONGEST_PAUSE = 60.0


@runtime_checkable
class Hold(Protocol):
    """Holds one round with whoever comes, over some network; see ``TcpServer.run_round``."""

    def __call__(
        self,
        identity: Identity,
        round_: Round,
        traffic: Traffic | None = None,
        *,
        greeting: bytes = b"",
        observe: Observe = ...,
    ) -> Completed: ...


@dataclass(frozen=True)
class Listener:
    """Where to listen, and what a peer is granted. tls: a server's context; None for tests."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Service:
    """What the rounds are for. results: folder for the sums; application: a file whose bytes go
    to the hospitals with each announcement (read anew for each); pause: seconds between rounds,
    doubled after each failed one, up to a minute."""

    results: Path
    application: Path | None = None
    pause: float = 1.0


def serve(
    place: Place,
    listener: Listener,
    service: Service,
    *,
    rounds: int | None = None,
    report: Report = lambda line: None,
    listening: Callable[[tuple[str, int]], None] = lambda address: None,
) -> int:
    """Hold rounds over TCP until ``rounds`` of them gave a sum (None: for ever); how many did.

    listening: called once with the address, as soon as hospitals may connect.
    Raises InputError for files that are not right.
    """
    with TcpServer(
        listener.host, listener.port, limits=listener.limits, tls=listener.tls, report=report
    ) as server:
        listening(server.address)
        return serve_over(server.run_round, place, service, rounds=rounds, report=report)


def serve_over(
    hold: Hold,
    place: Place,
    service: Service,
    *,
    rounds: int | None = None,
    report: Report = lambda line: None,
) -> int:
    """``serve`` over any network that can hold a round."""
    identity = load_identity(place.key)
    with (
        open_counter(place.state / "rounds.json", place.missed) as counter,
        open_transcript(place.state / "transcript.log", identity) as log,
    ):
        return _Daemon(hold, place, service, identity, counter, log, report).run(rounds)


class _Daemon:
    def __init__(
        self,
        hold: Hold,
        place: Place,
        service: Service,
        identity: Identity,
        counter: FileCounter,
        log: Transcript,
        report: Report,
    ) -> None:
        self._hold_round, self._service, self._identity = hold, service, identity
        self._counter, self._log, self._report = counter, log, report
        self._pinned = place.pinned()
        self._unused: tuple[bytes, int] | None = None  # announced, and nobody came

    def run(self, rounds: int | None) -> int:
        sums, failures = 0, 0
        self._directory()  # a bad one is found before anybody is kept waiting
        while rounds is None or sums < rounds:
            if self._hold():
                sums, failures = sums + 1, 0
            else:
                failures += 1
            if rounds is None or sums < rounds:
                time.sleep(min(self._service.pause * 2**failures, _LONGEST_PAUSE))
        return sums

    def _directory(self) -> FederationDirectory:
        directory = self._pinned.current()
        if directory.server != self._identity.public:
            raise InputError("key", self._identity.public.hex(), "the directory's server key")
        return directory

    def _hold(self) -> bool:
        """One round; whether it gave a sum."""
        directory = self._directory()
        number = self._number(directory)
        application = self._application(directory)
        round_ = directory.round(number, application)
        announcement = Announcement(number, directory.session, directory.digest, application)
        self._report(f"round {number}: open for {len(round_.roster)} hospitals")

        def observe(way: str, phase: str, hospital: int, message: Buffer) -> None:
            direction = "up" if way == "received" else "down"
            self._log.message(way, direction, round_, phase, hospital, message)

        traffic = Traffic()
        try:
            completed = self._hold_round(
                self._identity,
                round_,
                traffic,
                greeting=announcement.to_bytes(self._identity),
                observe=observe,
            )
            result = _result(directory, number, completed)
        except (RoundFailed, InputError) as failure:
            if traffic.hospitals["advertise"] == 0:
                self._unused = (round_.session, number)
            self._log.append("failed", round=number, reason=str(failure))
            self._log.sync()
            self._report(f"round {number}: {failure}")
            return False
        self._keep(number, *result)
        return True

    def _number(self, directory: FederationDirectory) -> int:
        """The next, on the disk already; the last one again if nobody has sent anything in it."""
        if self._unused is not None and self._unused[0] == directory.session:
            number, self._unused = self._unused[1], None
            return number
        number = self._counter.last(directory.session) + 1
        self._counter.advance(directory.session, number)
        self._log.append(
            "begun", session=directory.session.hex(), round=number, serial=directory.serial
        )
        return number

    def _application(self, directory: FederationDirectory) -> bytes:
        path = self._service.application
        if path is None:
            return b""
        try:
            content = path.read_bytes()
        except OSError as problem:
            raise InputError("application", str(path), f"a readable file ({problem})") from None
        most = APPLICATION_ROOM + 8 * directory.settings.dimension
        if len(content) > most:
            raise InputError("application", f"{len(content)} bytes", f"at most {most}")
        return content

    def _keep(self, number: int, mean: np.ndarray, summary: dict[str, Any]) -> None:
        stem = self._service.results / f"round-{number:06d}"
        array = io.BytesIO()
        np.save(array, mean)
        write_whole(stem.with_suffix(".npy"), array.getvalue())
        write_whole(stem.with_suffix(".json"), json.dumps(summary, indent=1) + "\n")
        self._log.append("sum", round=number, survivors=summary["survivors"])
        self._log.sync()
        who = " ".join(map(str, summary["survivors"]))
        self._report(f"round {number}: the sum of {len(summary['survivors'])} hospitals ({who})")


def _result(
    directory: FederationDirectory, number: int, completed: Completed
) -> tuple[np.ndarray, dict[str, Any]]:
    """(mean, summary). Raises ImpossibleSum for one that no honest hospitals can have made."""
    decoded = directory.encoding.decode(completed.total, len(completed.survivors))
    return decoded.mean, {
        "session": directory.session.hex(),
        "round": number,
        "survivors": list(completed.survivors),
        "weight": decoded.weight,
        "clipped": decoded.clipped_count,
        "error_bound": decoded.max_error_bound,
        "excluded": {str(one): why for one, why in completed.excluded.items()},
        "refusals": list(completed.refusals),
        "traffic": asdict(completed.traffic),
    }
