"""The server on a TCP socket: one thread, every wait bounded, memory for one vector at a time.

A peer that has not yet sent a valid ADVERTISE may send 240 bytes and no more. Later phases
end when everybody still connected has answered, or at the time-out. Whatever a peer does
(garbage, oversized frames, half a frame, silence, a reset) costs that peer its connection or its
place in the round and nobody else anything.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from repro.secagg.driver import counted
from repro.secagg.errors import Refused
from repro.secagg.keys import Identity
from repro.secagg.messages import ADVERTISE_BYTES, Buffer, max_message_bytes
from repro.secagg.rounds import Round
from repro.secagg.server import Answers, Server
from repro.secagg.simulation import Completed, Traffic
from repro.secagg.transport.wire import FrameReader, frame_header

SMALL_FRAME = 1 << 20  # larger ones are read from one peer at a time
_REFUSALS_ALLOWED = 3


@dataclass(eq=False)
class Peer:
    """One connection. hospital: whose it is, once an ADVERTISE of it has been accepted."""

    socket: socket.socket
    reader: FrameReader = field(default_factory=lambda: FrameReader(ADVERTISE_BYTES))
    hospital: int | None = None
    outgoing: deque[memoryview] = field(default_factory=deque)
    refusals: int = 0
    heard: float = field(default_factory=time.monotonic)


class TcpServer:
    """Listens at construction (``address`` says where), holds rounds one after another.

    timeout: seconds a phase may take in all; stall: seconds a peer may pause within a large
    frame, which others are waiting to send theirs behind. Use as a context manager.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        timeout: float = 60.0,
        stall: float = 5.0,
        max_peers: int = 4096,
    ) -> None:
        self.timeout, self.stall, self.max_peers = timeout, stall, max_peers
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server((host, port), backlog=512)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._peers: set[Peer] = set()
        self._large: Peer | None = None  # the one peer whose large frame is being read
        self._waiting: deque[Peer] = deque()

    def __enter__(self) -> TcpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._close_peers()
        self._selector.unregister(self._listener)
        self._listener.close()
        self._selector.close()

    def run_round(
        self, identity: Identity, round_: Round, traffic: Traffic | None = None
    ) -> Completed:
        """One round with whoever connects. Raises RoundFailed when too few are left.

        traffic: filled as the round goes; the server's seconds include its waiting, and the
        hospitals' are not known here. All connections are closed at the end, however it ends.
        """
        traffic = Traffic() if traffic is None else traffic
        server = Server(identity, round_)
        try:
            while server.phase != "done":
                answers = server.receive(self._messages(server, server.phase, traffic))
                self._send(answers)
                if answers:
                    following = counted(server.phase)
                    traffic.down_bytes[following] += sum(map(len, answers.values()))
        finally:
            self._close_peers()
        assert server.total is not None
        refusals, survivors = tuple(server.refusals), tuple(sorted(server.survivors))
        return Completed(server.total, survivors, refusals, traffic, server.excluded)

    def _messages(self, server: Server, phase: str, traffic: Traffic) -> Iterator[Buffer]:
        """Messages as they come, until nobody is left who could still answer this phase."""
        started = time.monotonic()
        limit = max_message_bytes(server.round)
        while self._unfinished(server, phase) and time.monotonic() < started + self.timeout:
            for peer, message in self._poll(accepting=phase == "advertise"):
                awaited = set(server.awaited)
                yield message
                accepted = awaited - server.awaited
                if accepted:
                    traffic.sent(phase, len(message))
                    peer.hospital, peer.reader.limit = accepted.pop(), limit
                else:
                    peer.refusals += 1
                    if peer.hospital is None or peer.refusals > _REFUSALS_ALLOWED:
                        self._close(peer)
        if phase == "advertise":  # nobody may join any more
            for peer in [peer for peer in self._peers if peer.hospital is None]:
                self._close(peer)
        traffic.server_seconds[counted(phase)] += time.monotonic() - started

    def _unfinished(self, server: Server, phase: str) -> bool:
        if phase == "advertise":
            return bool(server.awaited)
        return bool(server.awaited & {peer.hospital for peer in self._peers})

    def _poll(self, *, accepting: bool) -> Iterator[tuple[Peer, bytearray]]:
        """One wait on all sockets, at most 0.1 s; what came of it."""
        for key, events in self._selector.select(timeout=0.1):
            if key.data is None:
                self._accept(accepting)
                continue
            peer: Peer = key.data
            if events & selectors.EVENT_WRITE and peer in self._peers:
                self._flush(peer)
            if events & selectors.EVENT_READ and peer in self._peers:
                message = self._read(peer)
                if message is not None:
                    yield peer, message
        if self._large and time.monotonic() > self._large.heard + self.stall:
            self._close(self._large)

    def _accept(self, accepting: bool) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone away again
            return
        if not accepting or len(self._peers) >= self.max_peers:
            connection.close()
            return
        connection.setblocking(False)
        peer = Peer(connection)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _read(self, peer: Peer) -> bytearray | None:
        if peer.reader.length > SMALL_FRAME and not self._begin_large(peer):
            return None
        try:
            message = peer.reader.read(peer.socket)
        except BlockingIOError:
            return None
        except (OSError, Refused):
            self._close(peer)
            return None
        peer.heard = time.monotonic()
        if message is not None and self._large is peer:
            self._end_large()
        return message

    def _begin_large(self, peer: Peer) -> bool:
        """Whether the peer may send its large frame now; if not, it is not listened to."""
        if self._large in (None, peer):
            self._large = peer
            return True
        self._waiting.append(peer)
        self._watch(peer)
        return False

    def _end_large(self) -> None:
        self._large = None
        while self._waiting and self._large is None:
            peer = self._waiting.popleft()
            if peer in self._peers:
                self._large, peer.heard = peer, time.monotonic()
                self._watch(peer)

    def _send(self, answers: Answers) -> None:
        for peer in list(self._peers):
            message = answers.get(peer.hospital) if peer.hospital is not None else None
            if message is not None:
                peer.outgoing += (memoryview(frame_header(message)), memoryview(message))
                self._flush(peer)

    def _flush(self, peer: Peer) -> None:
        try:
            while peer.outgoing:
                sent = peer.socket.send(peer.outgoing[0])
                rest = peer.outgoing.popleft()[sent:]
                if len(rest):
                    peer.outgoing.appendleft(rest)
        except BlockingIOError:
            pass
        except OSError:
            self._close(peer)
            return
        self._watch(peer)

    def _watch(self, peer: Peer) -> None:
        """Listen for what matters of this peer now."""
        events = 0 if peer in self._waiting else selectors.EVENT_READ
        if peer.outgoing:
            events |= selectors.EVENT_WRITE
        watched = peer.socket in self._selector.get_map()
        if watched and events:
            self._selector.modify(peer.socket, events, peer)
        elif events:
            self._selector.register(peer.socket, events, peer)
        elif watched:
            self._selector.unregister(peer.socket)

    def _close(self, peer: Peer) -> None:
        if peer not in self._peers:
            return
        self._peers.discard(peer)
        if peer.socket in self._selector.get_map():
            self._selector.unregister(peer.socket)
        peer.socket.close()
        if self._large is peer:
            self._end_large()

    def _close_peers(self) -> None:
        for peer in list(self._peers):
            self._close(peer)
        self._waiting.clear()
        self._large = None
