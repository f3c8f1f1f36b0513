"""The server's own part in a federation's rounds, over any network: open one, hold it, decode.

A round's number is on the disk before it is announced, so a server that was killed goes on with
the next one. What is done with a sum, and what the next round is about, is the caller's.

    with open_holder(place) as holder, TcpServer(host, port, tls=tls) as server:
        total = holder.hold(server.run_round, application=model_bytes, limits=server.limits)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from repro.errors import InputError
from repro.secagg.deploy.announcement import Announcement, max_application_bytes
from repro.secagg.deploy.counter import FileCounter, open_counter
from repro.secagg.deploy.directory import FederationDirectory, RoundOf
from repro.secagg.deploy.door import KnownStates, RoundDoor
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import Place
from repro.secagg.deploy.transcript import Transcript, open_transcript
from repro.secagg.encoding import Decoded
from repro.secagg.errors import RoundFailed
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer
from repro.secagg.protocols import protocol_of
from repro.secagg.rounds import BaseRound
from repro.secagg.simulation import Completed, Traffic
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.quiet import Once, Report
from repro.secagg.transport.tcp_server import Door, Observe


@runtime_checkable
class Hold(Protocol):
    """Holds one round with whoever comes, over some network; see ``TcpServer.run_round``."""

    def __call__(
        self,
        identity: Identity,
        round_: BaseRound,
        traffic: Traffic | None = None,
        *,
        door: Door | None = None,
        observe: Observe = ...,
    ) -> Completed: ...


@runtime_checkable
class Tell(Protocol):
    """Tells whoever comes, see ``TcpServer.tell``."""

    def __call__(self, door: Door, hospitals: Collection[int], seconds: float) -> set[int]: ...


@dataclass(frozen=True)
class Sum:
    """What a round has given. decoded: mean (dimension,) float64, weight, error bound;
    completed: the field sum and whose inputs are in it (``survivors``)."""

    session: bytes
    number: int
    decoded: Decoded
    completed: Completed

    @property
    def survivors(self) -> tuple[int, ...]:
        return self.completed.survivors

    def summary(self) -> dict[str, Any]:
        """All of it but the vectors, as JSON holds it."""
        completed, decoded = self.completed, self.decoded
        return {
            "session": self.session.hex(),
            "round": self.number,
            "survivors": list(completed.survivors),
            "weight": decoded.weight,
            "clipped": decoded.clipped_count,
            "error_bound": decoded.max_error_bound,
            "excluded": {str(one): why for one, why in completed.excluded.items()},
            "refusals": list(completed.refusals),
            "traffic": asdict(completed.traffic),
        }


class Holder:
    """A federation's server between its rounds. See ``open_holder``."""

    def __init__(
        self,
        place: Place,
        identity: Identity,
        counter: FileCounter,
        log: Transcript,
        report: Report,
        round_of: RoundOf,
    ) -> None:
        self._identity, self._counter, self._log, self._report = identity, counter, log, report
        self._round_of = round_of
        self._pinned, self._warn = place.pinned(report), Once(report)
        self._states = KnownStates(place.state / "hospitals.json")
        self._unused: tuple[bytes, int] | None = None  # announced, and nobody came

    def directory(self) -> FederationDirectory:
        """The operator's, as it is now. InputError if its server has another key."""
        directory = self._pinned.current()
        if directory.server != self._identity.public:
            raise InputError("key", self._identity.public.hex(), "the directory's server key")
        return directory

    def hold(self, network: Hold, *, application: bytes = b"", limits: Limits | None = None) -> Sum:
        """One round about these bytes. limits: those of the network, so that hospitals are told
        how long to wait.

        Raises RoundFailed (ImpossibleSum among them) for one that gave no sum, InputError for
        an application that hospitals would not take or a sum without weight.
        """
        directory = self.directory()
        most = max_application_bytes(directory.settings.dimension)
        if len(application) > most:
            raise InputError("application", f"{len(application)} bytes", f"at most {most}")
        number = self._number(directory)
        round_ = self._round_of(directory, number, application)
        wait = 0.0 if limits is None else limits.longest_wait(round_, len(application))
        announcement = Announcement.of(
            number, directory.session, directory.digest, application, math.ceil(wait)
        )
        self._report(f"round {number}: open for {len(round_.roster)} hospitals")
        traffic = Traffic.of(protocol_of(round_).phases)
        try:
            completed = network(
                self._identity,
                round_,
                traffic,
                door=RoundDoor(
                    announcement, self._identity, directory.hospitals, self._states, self._warn
                ),
                observe=self._observer(round_),
            )
            decoded = round_.decode(completed.total, completed.survivors)
        except (RoundFailed, InputError) as failure:
            if traffic.hospitals["advertise"] == 0:
                self._unused = (round_.session, number)
            self._log.append(
                "failed", session=round_.session.hex(), round=number, reason=str(failure)
            )
            self._log.sync()
            self._report(f"round {number}: {failure}")
            raise
        survivors = list(completed.survivors)
        self._log.append("sum", session=round_.session.hex(), round=number, survivors=survivors)
        self._log.sync()
        who = " ".join(map(str, survivors))
        self._report(f"round {number}: the sum of {len(survivors)} hospitals ({who})")
        for one, why in sorted(completed.excluded.items()):
            self._report(f"round {number}: hospital {one} is left out: {why}")
        return Sum(directory.session, number, decoded, completed)

    def close(self, network: Tell, application: bytes = b"", *, seconds: float = 60.0) -> set[int]:
        """No more rounds: hand each hospital the bytes that it has come to, such as the last
        model. Returns those that have got them within ``seconds``, see ``TcpServer.tell``."""
        directory = self.directory()
        announcement = Announcement.of(0, directory.session, directory.digest, application)
        door = RoundDoor(
            announcement, self._identity, directory.hospitals, self._states, lambda line: None
        )
        told = network(door, directory.hospitals, seconds)
        self._report(f"closed: {len(told)} of {len(directory.hospitals)} hospitals were told")
        return told

    def _observer(self, round_: BaseRound) -> Observe:
        def observe(way: str, phase: str, hospital: int, message: Buffer) -> None:
            direction = "up" if way == "received" else "down"
            self._log.message(way, direction, round_, phase, hospital, message)

        return observe

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


@contextlib.contextmanager
def open_holder(
    place: Place,
    report: Report = lambda line: None,
    *,
    round_of: RoundOf = FederationDirectory.round,
) -> Iterator[Holder]:
    """The server with its state folder open, which no other process may have. InputError for
    files that are not right, before anything else is done.

    round_of: what a round is, the same at every hospital; by default one weighted vector of the
        directory's settings.
    """
    identity = load_identity(place.key)
    with (
        open_counter(place.state / "rounds.json", place.missed) as counter,
        open_transcript(
            place.state / "transcript.log", identity, "server", watch=place.watch
        ) as log,
    ):
        holder = Holder(place, identity, counter, log, report, round_of)
        holder.directory()
        yield holder
