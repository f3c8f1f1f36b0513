"""The server on a TCP socket: one thread, every wait bounded, memory for a few messages.

A peer that has not yet sent a valid ADVERTISE may send that much and no more; later phases take
what an honest hospital sends in them and no more. A phase ends when everybody still connected
has answered, or at its time-out. ``peers`` says what a misbehaving peer loses.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator

from repro.secagg.driver import counted
from repro.secagg.keys import Identity
from repro.secagg.messages import ADVERTISE_BYTES, Buffer
from repro.secagg.rounds import Round
from repro.secagg.server import Answers, Server
from repro.secagg.simulation import Completed, Traffic
from repro.secagg.transport.limits import Limits, buffer_bytes, frame_limit
from repro.secagg.transport.peers import Peers, Report

Observe = Callable[[str, str, int, Buffer], None]  # way, phase, hospital, message
_TURN = 0.1  # seconds of one wait on all sockets


class TcpServer:
    """Listens at construction (``address`` says where), holds rounds one after another.

    limits: what a peer is granted, see ``Limits``; tls: a server's context, for TLS; report:
    called with a line for each connection that is cut off. Use as a context manager.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        report: Report = lambda line: None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        listener = socket.create_server((host, port), backlog=512)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._peers = Peers(listener, self.limits, tls, report)

    def __enter__(self) -> TcpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._peers.shut_down()

    def run_round(
        self,
        identity: Identity,
        round_: Round,
        traffic: Traffic | None = None,
        *,
        greeting: bytes = b"",
        observe: Observe = lambda way, phase, hospital, message: None,
    ) -> Completed:
        """One round with whoever connects. Raises RoundFailed when too few are left.

        traffic: filled as the round goes; the server's seconds include its waiting, and the
        hospitals' are not known here. greeting: a first frame for everybody who connects, such
        as what the round is about. observe: called with every message that is accepted
        ("received") or answered ("sent"). All connections are closed at the end, however it ends.
        Raises InputError if the process may not open a connection for each hospital.
        """
        traffic = Traffic() if traffic is None else traffic
        server, peers = Server(identity, round_), self._peers
        peers.limits, peers.greeting = self.limits, greeting
        peers.capacity = self.limits.connections(len(round_.roster))
        try:
            while server.phase != "done":
                answers = server.receive(self._messages(server, traffic, observe))
                self._send(server, answers)
                note_answers(server, answers, traffic, observe)
        finally:
            peers.accepting = False
            peers.close_all()
        return finish(server, traffic)

    def _messages(self, server: Server, traffic: Traffic, observe: Observe) -> Iterator[Buffer]:
        """Messages as they come, until nobody is left who could still answer this phase."""
        phase, started = server.phase, time.monotonic()
        ends = started + self.limits.seconds(phase)
        limit = frame_limit(phase, server.round)
        self._admit(server, limit)
        while self._unfinished(server, phase) and time.monotonic() < ends:
            for peer, message in self._peers.poll(min(_TURN, ends - time.monotonic())):
                awaited = set(server.awaited)
                yield message
                accepted = awaited - server.awaited
                if not accepted:  # a hospital that breaks the protocol is not waited for either
                    self._peers.close(peer, "its message was refused")
                    continue
                traffic.sent(phase, len(message))
                # Nothing more is due from it before it has been answered.
                peer.hospital, peer.reader.limit = accepted.pop(), 0
                observe("received", phase, peer.hospital, message)
        traffic.server_seconds[counted(phase)] += time.monotonic() - started

    def _admit(self, server: Server, limit: int) -> None:
        """Who may connect and speak in the phase that begins, and how much."""
        first = server.phase == "advertise"
        self._peers.accepting = first
        self._peers.room = buffer_bytes(max(limit, ADVERTISE_BYTES))
        for peer in self._peers:
            peer.reader.limit = limit if first or peer.hospital in server.awaited else 0

    def _unfinished(self, server: Server, phase: str) -> bool:
        if phase == "advertise":
            return bool(server.awaited)
        return bool(server.awaited & {peer.hospital for peer in self._peers})

    def _send(self, server: Server, answers: Answers) -> None:
        """Answer; who has no part in the round any more is let go."""
        for peer in self._peers:
            message = answers.get(peer.hospital) if peer.hospital is not None else None
            if message is not None:
                self._peers.send(peer, message)
            elif server.phase != "open" or peer.hospital is None:  # only the accused are asked
                self._peers.close(peer)


def note_answers(server: Server, answers: Answers, traffic: Traffic, observe: Observe) -> None:
    """Count the server's messages, and show them."""
    for one, answer in answers.items():
        traffic.down_bytes[counted(server.phase)] += len(answer)
        observe("sent", server.phase, one, answer)


def finish(server: Server, traffic: Traffic) -> Completed:
    """What a round that is done has given."""
    assert server.total is not None
    refusals, survivors = tuple(server.refusals), tuple(sorted(server.survivors))
    return Completed(server.total, survivors, refusals, traffic, server.excluded)
