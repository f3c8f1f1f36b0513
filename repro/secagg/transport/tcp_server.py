"""The server on a TCP socket: one thread, every wait bounded, memory for a few messages.

A peer that has not yet sent a valid ADVERTISE may send that much and no more; later phases take
what an honest hospital sends in them and no more. A phase ends when everybody still connected
has answered, or at its time-out; then who is in the middle of a transfer may end it. ``peers`` says
what a misbehaving peer loses.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Protocol, runtime_checkable

from repro.errors import InputError
from repro.secagg.driver import counted
from repro.secagg.errors import Refused
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer, sender_of
from repro.secagg.protocols import ServerParty, protocol_of
from repro.secagg.rounds import BaseRound
from repro.secagg.simulation import Completed, Traffic
from repro.secagg.transport.following import Wraps
from repro.secagg.transport.limits import Limits, buffer_bytes
from repro.secagg.transport.peers import Peer, Peers
from repro.secagg.transport.quiet import Report

Observe = Callable[[str, str, int, Buffer], None]  # way, phase, hospital, message
_TURN = 0.1  # seconds of one wait on all sockets


@runtime_checkable
class Door(Protocol):
    """What everybody who connects is told, and who then gets in.

    greeting: a first frame, the peer's challenge behind it; largest: of what ``enter`` returns.
    """

    @property
    def greeting(self) -> bytes: ...

    @property
    def largest(self) -> int: ...

    def enter(self, hello: Buffer, challenge: bytes) -> tuple[int, Buffer]:
        """Whose connection this is, and what it is sent. Refused for who is no hospital,
        NotWelcome for one that may not take part, which is told why."""


class NotWelcome(Refused):
    """A hospital that has proven who it is and may not take part all the same."""

    def __init__(self, hospital: int, reason: str) -> None:
        super().__init__(reason)
        self.hospital = hospital


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
        tls: Wraps | None = None,
        report: Report = lambda line: None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        listener = _listener(host, port)
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
        round_: BaseRound,
        traffic: Traffic | None = None,
        *,
        door: Door | None = None,
        observe: Observe = lambda way, phase, hospital, message: None,
    ) -> Completed:
        """One round with whoever connects. Raises RoundFailed when too few are left.

        traffic: filled as the round goes; the server's seconds include its waiting, and the
        hospitals' are not known here. door: if given, a hospital has to pass it before it
        advertises. observe: called with every message that is accepted ("received"), or before
        it is answered ("sent"). All connections are closed at the end, however it ends.
        Raises InputError if the process may not open a connection for each hospital.
        """
        protocol, peers = protocol_of(round_), self._peers
        traffic = Traffic.of(protocol.phases) if traffic is None else traffic
        server, peers.first = protocol.server(identity, round_), protocol.first_frame(round_)
        peers.limits, peers.greeting = self.limits, b"" if door is None else door.greeting
        peers.capacity = self.limits.connections(len(round_.roster))
        try:
            while server.phase != "done":
                answers = server.receive(self._messages(server, traffic, observe, door))
                # Before they are sent: what a hospital has received the server's log has, too.
                note_answers(server, answers, traffic, observe)
                self._send(server, answers)
        finally:
            peers.accepting = False
            peers.close_all()
        return finish(server, traffic)

    def _messages(
        self, server: ServerParty, traffic: Traffic, observe: Observe, door: Door | None
    ) -> Iterator[Buffer]:
        """Messages as they come, until nobody is left who could still answer this phase."""
        phase, started = server.phase, time.monotonic()
        ends = started + self.limits.seconds(phase)
        limit = protocol_of(server.round).frame_limit(phase, server.round)
        largest = max(limit, 0 if door is None or phase != "advertise" else door.largest)
        overtime = self.limits.overtime(largest)
        enough = self.limits.enough if phase == "advertise" else 0
        self._admit(server, limit)
        while self._unfinished(server, phase):
            now = time.monotonic()
            if enough and len(server.round.roster) - len(server.awaited) >= enough:
                enough, ends = 0, min(ends, now + self.limits.stragglers)
            last = ends + overtime
            if now >= last or (now >= ends and not self._in_transfer(server)):
                break
            for peer, message in self._peers.poll(min(_TURN, last - now)):
                if phase == "advertise" and door is not None and peer.known is None:
                    self._let_in(door, server.awaited, peer, message)
                    continue
                if peer.known is not None and not _is_from(peer.known, message):
                    self._peers.close(peer, "its message does not bear its own name")
                    continue
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

    def _admit(self, server: ServerParty, limit: int) -> None:
        """Who may connect and speak in the phase that begins, and how much."""
        first = server.phase == "advertise"
        self._peers.accepting = first
        self._peers.room = buffer_bytes(max(limit, self._peers.first))
        for peer in self._peers:
            peer.reader.limit = limit if first or peer.hospital in server.awaited else 0

    def tell(self, door: Door, hospitals: Collection[int], seconds: float) -> set[int]:
        """No round: what the door has, for each of these hospitals that comes within ``seconds``
        (and what transfers take beyond). Returns those that have fetched it and left."""
        peers, waiting = self._peers, set(hospitals)
        peers.limits, peers.greeting, peers.accepting = self.limits, door.greeting, True
        peers.capacity = self.limits.connections(len(waiting))
        ends, told = time.monotonic() + seconds, set[int]()
        last, sent = ends + self.limits.overtime(door.largest), list[Peer]()
        try:
            while waiting - told:
                now = time.monotonic()
                if now >= last or (now >= ends and not any(peer.busy for peer in sent)):
                    break
                for peer, message in peers.poll(min(_TURN, last - now)):
                    self._let_in(door, waiting - told, peer, message)
                    peer.reader.limit = 0
                    sent.append(peer)
                for peer in sent:
                    if peer.known is not None and peer not in peers and not peer.outgoing:
                        told.add(peer.known)
        finally:
            peers.accepting = False
            peers.close_all()
        return told & waiting

    def _let_in(self, door: Door, awaited: Collection[int], peer: Peer, hello: Buffer) -> None:
        """The peer is a hospital's, and is sent what the door has for it; or it is closed."""
        try:
            hospital, welcome = door.enter(hello, peer.challenge)
        except Refused as reason:
            peer.known = reason.hospital if isinstance(reason, NotWelcome) else None
            self._peers.close(peer, str(reason))
            return
        for other in self._peers:  # one connection a hospital: its latest, until it advertises
            if other.known == hospital and other.hospital is None:
                self._peers.close(other, "this hospital has connected anew")
        peer.known = hospital
        if hospital not in awaited:
            self._peers.close(peer, "this hospital is in the round already, or was refused")
            return
        self._peers.send(peer, welcome)

    def _in_transfer(self, server: ServerParty) -> bool:
        """Whether somebody still awaited is sending or being sent something, or has just been
        sent what it needs to advertise."""
        return any(
            peer.who in server.awaited and (peer.busy or peer.hospital is None)
            for peer in self._peers
        )

    def _unfinished(self, server: ServerParty, phase: str) -> bool:
        if phase == "advertise":
            return bool(server.awaited)
        return bool(server.awaited & {peer.hospital for peer in self._peers})

    def _send(self, server: ServerParty, answers: Mapping[int, Buffer]) -> None:
        """Answer; who has no part in the round any more is let go."""
        for peer in self._peers:
            message = answers.get(peer.hospital) if peer.hospital is not None else None
            if message is not None:
                self._peers.send(peer, message)
            elif peer.hospital is None or server.dismisses(peer.hospital):
                self._peers.close(peer)


def _is_from(hospital: int, message: Buffer) -> bool:
    """Whether the message says so."""
    try:
        return sender_of(message) == hospital
    except Refused:  # too short to say anything
        return False


def _listener(host: str, port: int) -> socket.socket:
    """A socket that listens, of IPv4 or IPv6 as the host is; ``::`` takes both."""
    if not 0 <= port < 2**16:
        raise InputError("port", port, "0 to 65535 (0: any free one)")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family = found[0][0]
        both = family == socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=512, dualstack_ipv6=both)
    except (OSError, UnicodeError) as problem:
        why = getattr(problem, "strerror", None) or problem
        expected = f"an address and a port of this machine that are free ({why})"
        raise InputError("address", f"{host}, port {port}", expected) from None


def note_answers(
    server: ServerParty, answers: Mapping[int, Buffer], traffic: Traffic, observe: Observe
) -> None:
    """Count the server's messages, and show them."""
    for one, answer in answers.items():
        traffic.down_bytes[counted(server.phase)] += len(answer)
        observe("sent", server.phase, one, answer)


def finish(server: ServerParty, traffic: Traffic) -> Completed:
    """What a round that is done has given."""
    assert server.total is not None
    refusals, survivors = tuple(server.refusals), tuple(sorted(server.survivors))
    return Completed(server.total, survivors, refusals, traffic, dict(server.excluded))
