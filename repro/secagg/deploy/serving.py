"""The server over many rounds: announce, hold, decode, write the sum down, go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from repro.checks import check_zero_or_above
from repro.errors import InputError
from repro.secagg.deploy.holding import Hold, Holder, Sum, open_holder
from repro.secagg.deploy.place import Place
from repro.secagg.deploy.results import Results
from repro.secagg.errors import RoundFailed
from repro.secagg.transport.following import Wraps
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.quiet import Once, Report
from repro.secagg.transport.tcp_server import TcpServer

_LONGEST_PAUSE = 60.0
Network: TypeAlias = "contextlib.AbstractContextManager[tuple[Hold, Limits | None]]"


@dataclass(frozen=True)
class Listener:
    """Where to listen, and what a peer is granted. tls: a server's context, or one that follows
    its files; None for tests."""

    host: str
    port: int
    tls: Wraps | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Service:
    """What the rounds are for. results: folder for the sums, see ``Results``; application: a file
    whose bytes go to the hospitals in each round (read anew for each); pause: seconds between
    rounds, doubled after each failed one, up to a minute."""

    results: Path
    application: Path | None = None
    pause: float = 1.0

    def __post_init__(self) -> None:
        check_zero_or_above(self, "pause")


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
    Raises InputError for files that are not right, before it listens.
    """

    @contextlib.contextmanager
    def network() -> Iterator[tuple[Hold, Limits | None]]:
        with TcpServer(
            listener.host, listener.port, limits=listener.limits, tls=listener.tls, report=report
        ) as server:
            listening(server.address)
            yield server.run_round, listener.limits

    return _serve(network(), place, service, rounds, report)


def serve_over(
    hold: Hold,
    place: Place,
    service: Service,
    *,
    rounds: int | None = None,
    report: Report = lambda line: None,
) -> int:
    """``serve`` over any network that can hold a round."""
    return _serve(contextlib.nullcontext((hold, None)), place, service, rounds, report)


def _serve(
    network: Network, place: Place, service: Service, rounds: int | None, report: Report
) -> int:
    results, again = Results(service.results), Once(report)
    with open_holder(place, report) as holder:
        _ready(holder, service, results)
        with network as (hold, limits):
            sums, failures = 0, 0
            while rounds is None or sums < rounds:
                directory = holder.directory()  # another server's: this one ends
                try:
                    application = _ready(holder, service, results)
                    given: Sum | None = holder.hold(hold, application=application, limits=limits)
                except (RoundFailed, InputError) as problem:
                    if isinstance(problem, InputError):
                        again(f"no round: {problem}; trying again")
                    results.release(directory.session)
                    given = None
                if given is None:
                    failures += 1
                else:
                    _keep(results, given, service.pause, again)
                    sums, failures = sums + 1, 0
                if rounds is None or sums < rounds:
                    time.sleep(min(service.pause * 2**failures, _LONGEST_PAUSE))
    return sums


def _ready(holder: Holder, service: Service, results: Results) -> bytes:
    """Everything that a round needs beside hospitals, tried; the application. InputError for
    what is not there."""
    directory = holder.directory()
    results.reserve(directory.session, directory.settings.dimension)
    if service.application is None:
        return b""
    try:
        return service.application.read_bytes()
    except OSError as problem:
        expected = f"a readable file ({problem.strerror})"
        raise InputError("application", str(service.application), expected) from None


def _keep(results: Results, given: Sum, pause: float, report: Report) -> None:
    """Write the sum down, however long it takes: it is nowhere else."""
    while problem := results.keep(given.session, given.number, given.decoded.mean, given.summary()):
        report(f"round {given.number}: its sum is in memory only; trying again: {problem}")
        time.sleep(max(pause, 1.0))
