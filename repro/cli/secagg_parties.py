"""``repro secagg serve`` and ``repro secagg join``: the two ends of a deployed federation."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from repro.cli.output import Outcome, say
from repro.errors import InputError

if TYPE_CHECKING:
    from repro.secagg import Contribution
    from repro.secagg.deploy.announcement import Announcement
    from repro.secagg.deploy.joining import Server
    from repro.secagg.deploy.place import Place
    from repro.secagg.deploy.serving import Listener
    from repro.secagg.deploy.transcript import Watch


def configure_serve(parser: argparse.ArgumentParser) -> None:
    configure_place(parser)
    add = parser.add_argument
    add("--results", type=Path, required=True, metavar="DIR", help="where the sums go")
    configure_listener(parser)
    add("--application", type=Path, metavar="FILE", help="bytes for the hospitals, each round")
    add("--rounds", type=int, metavar="N", help="stop after N sums (default: never)")
    add("--opening", type=float, default=60.0, metavar="S", help="s to join in (%(default)s)")
    add("--pause", type=float, default=1.0, metavar="S", help="s between rounds (%(default)s)")


def configure_listener(parser: argparse.ArgumentParser) -> None:
    """Where a server listens, and what it grants a hospital."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=7443, help="port; 0: any free one (%(default)s)")
    add("--tls-certificate", type=Path, metavar="PEM", help="the server's certificate chain")
    add("--tls-key", type=Path, metavar="PEM", help="its private key")
    add("--tls-hospitals", type=Path, metavar="PEM", help="who may connect (mutual TLS)")
    add("--phase", type=float, default=60.0, metavar="S", help="s to answer in (%(default)s)")
    who = "s to say who one is, and to advertise (%(default)s)"
    add("--introduction", type=float, default=5.0, metavar="S", help=who)
    add("--grace", type=float, default=5.0, metavar="S", help="s a transfer may lag (%(default)s)")
    add_rate(add)


def configure_join(parser: argparse.ArgumentParser) -> None:
    configure_place(parser)
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", metavar="HOST:PORT", help="where the server listens")
    socket = "answer on a Unix socket, for Flower's network"
    where.add_argument("--agent", type=Path, metavar="SOCKET", help=socket)
    configure_connection(parser)
    add("--vector", type=Path, required=True, metavar="NPY", help="(N,) float32 or float64")
    add("--weight", type=int, required=True, metavar="W", help="such as training examples")
    add("--command", dest="train", metavar="CMD", help="run for each round; writes NPY")
    add("--rounds", type=int, metavar="N", help="stop after N rounds (default: never)")


def configure_connection(parser: argparse.ArgumentParser) -> None:
    """How a hospital reaches the server, and how long it waits for it."""
    add = parser.add_argument
    add("--tls-authorities", type=Path, metavar="PEM", help="who may vouch for the server")
    add("--tls-certificate", type=Path, metavar="PEM", help="this hospital's (mutual TLS)")
    add("--tls-key", type=Path, metavar="PEM", help="its private key")
    add("--tls-name", metavar="NAME", help="name in the server's certificate (default: HOST)")
    add("--proxy", metavar="HOST:PORT", help="go through this HTTP proxy (CONNECT)")
    add("--patience", type=float, metavar="S", help="give up after S s without a round")
    add("--wait", type=float, default=120.0, metavar="S", help="s for one message (%(default)s)")
    add_rate(add)


def add_rate(add: Callable[..., object]) -> None:
    said = "bytes a second the other end has to reach (%(default)s)"
    add("--rate", type=float, default=65536.0, metavar="B", help=said)


def configure_place(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--key", type=Path, required=True, help="private key (see `repro secagg keygen`)")
    add("--directory", type=Path, required=True, help="the directory that the operator signed")
    add("--operator", required=True, metavar="PUB", help="the operator's public key, file or hex")
    add("--state", type=Path, required=True, metavar="DIR", help="folder for counter and log")
    add("--missed", type=int, default=16, metavar="N", help="rounds one may miss (%(default)s)")
    add("--no-tls", action="store_true", help="for tests on one machine")
    add("--monitor", metavar="HOST:PORT", help="answer /health and /metrics over HTTP there")


def execute_serve(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.serving import Service, serve

    listener = listener_of(arguments, arguments.opening)
    service = Service(arguments.results, arguments.application, arguments.pause)
    signal.signal(signal.SIGTERM, stop)
    sums = serve(
        place_of(arguments),
        listener,
        service,
        rounds=arguments.rounds,
        report=say,
        listening=lambda address: say(f"listening on {shown(*address)}"),
    )
    data = {"rounds": sums, "results": str(arguments.results)}
    return Outcome(data, f"{sums} sums in {arguments.results}")


def listener_of(arguments: argparse.Namespace, opening: float) -> Listener:
    """Of ``configure_listener``'s arguments. opening: seconds to join in."""
    from repro.secagg.deploy.serving import Listener
    from repro.secagg.transport.following import FollowedContext
    from repro.secagg.transport.limits import Limits
    from repro.secagg.transport.tls import server_context

    tls = None
    if tls_wanted(arguments, "tls_certificate", "tls_key"):
        files = arguments.tls_certificate, arguments.tls_key, arguments.tls_hospitals
        tls = FollowedContext(
            lambda: server_context(*files), [path for path in files if path is not None], say
        )
    limits = Limits(
        phase=arguments.phase,
        opening=opening,
        introduction=arguments.introduction,
        grace=arguments.grace,
        rate=arguments.rate,
    )
    return Listener(arguments.host, arguments.port, tls, limits)


def execute_join(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.joining import join

    place = place_of(arguments)
    _check_first(arguments, place)
    signal.signal(signal.SIGTERM, stop)

    def prepare(announcement: Announcement) -> Contribution:
        return _contribution(arguments, announcement)

    if arguments.agent is not None:
        from repro.secagg.deploy.agent import run_agent

        completed = run_agent(place, arguments.agent, prepare, rounds=arguments.rounds, report=say)
        return Outcome({"rounds": completed}, f"took part in {completed} rounds")
    server = server_of(arguments)
    try:
        completed = join(
            place, server, prepare, rounds=arguments.rounds, patience=arguments.patience, report=say
        )
    except TimeoutError as reason:
        return Outcome({"rounds": 0, "reason": str(reason)}, str(reason), 1)
    return Outcome({"rounds": completed}, f"took part in {completed} rounds")


def server_of(arguments: argparse.Namespace) -> Server:
    from repro.secagg.deploy.joining import Server
    from repro.secagg.transport.following import FollowedContext
    from repro.secagg.transport.tls import hospital_context

    address = address_of("server", arguments.server)
    tls = None
    if tls_wanted(arguments, "tls_authorities"):
        files = arguments.tls_authorities, arguments.tls_certificate, arguments.tls_key
        tls = FollowedContext(
            lambda: hospital_context(*files), [path for path in files if path is not None], say
        )
    proxy = None if arguments.proxy is None else address_of("proxy", arguments.proxy)
    return Server(*address, tls, arguments.tls_name, arguments.wait, arguments.rate, proxy)


def address_of(field: str, text: str) -> tuple[str, int]:
    """``HOST:PORT``, or ``[ADDRESS]:PORT``, taken apart."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise InputError(field, text, "HOST:PORT, or [ADDRESS]:PORT for IPv6")
    return host, int(port)


def place_of(arguments: argparse.Namespace) -> Place:
    from repro.secagg.deploy.place import Place
    from repro.secagg.deploy.transcript import unwatched

    watch: Watch = unwatched
    if arguments.monitor is not None:
        from repro.secagg.deploy.monitoring import Monitor, serve_pages

        watch = monitor = Monitor()
        serve_pages(monitor, *address_of("monitor", arguments.monitor))
        say(f"health and metrics on {arguments.monitor}")
    return Place(
        arguments.key,
        arguments.directory,
        operator_key(arguments.operator),
        arguments.state,
        arguments.missed,
        watch,
    )


def operator_key(text: str) -> bytes:
    """A public key, from a file or from its digits."""
    from repro.secagg.deploy.keystore import parse_public, read_public

    return read_public(Path(text)) if Path(text).exists() else parse_public(text)


def tls_wanted(arguments: argparse.Namespace, *needed: str) -> bool:
    missing = [name for name in needed if getattr(arguments, name) is None]
    if arguments.no_tls and len(missing) == len(needed):
        return False
    if missing:
        option = "--" + missing[0].replace("_", "-")
        raise InputError(option, None, "a PEM file, or --no-tls for tests on one machine")
    return True


def _contribution(arguments: argparse.Namespace, announcement: Announcement) -> Contribution:
    """The vector of a round, made by the command where there is one."""
    from repro.secagg import Contribution

    if arguments.train is not None:
        application = arguments.state / "application"
        application.write_bytes(announcement.application)
        told = {
            "REPRO_ROUND": str(announcement.number),
            "REPRO_APPLICATION": str(application.resolve()),
        }
        status = subprocess.run(
            shlex.split(arguments.train), env=os.environ | told, stdout=sys.stderr, check=False
        ).returncode
        if status:
            raise InputError("command", f"exit status {status}", "0")
    return Contribution(_vector(arguments.vector), arguments.weight)


def _vector(path: Path) -> np.ndarray:
    try:
        vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise InputError("vector", str(path), f"an .npy file ({problem})") from None
    if not isinstance(vector, np.ndarray):
        vector.close()
        raise InputError("vector", str(path), "an .npy file of one array, not an .npz")
    return vector


def _check_first(arguments: argparse.Namespace, place: Place) -> None:
    """What can be wrong with a contribution and is there already, found before anything is
    opened: the vector, if no command has yet to make it, and the weight."""
    from repro.secagg import Contribution

    directory = place.pinned().current()
    if arguments.train is None:
        directory.check(Contribution(_vector(arguments.vector), arguments.weight))
    elif not shlex.split(arguments.train):
        raise InputError("command", arguments.train, "a command")
    directory.encoding.check(np.zeros(1), arguments.weight)


def shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def stop(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)
