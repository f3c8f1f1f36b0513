"""The server's connections: who is heard, how long, and how much of it is kept in memory.

Whatever a peer does (garbage, oversized frames, a byte now and then, silence, a reset, a
thousand connections) costs that peer its connection and nobody else theirs.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from repro.secagg.errors import Refused
from repro.secagg.messages import ADVERTISE_BYTES, Buffer
from repro.secagg.transport.channel import Channel
from repro.secagg.transport.following import Wraps
from repro.secagg.transport.limits import Limits
from repro.secagg.transport.notice import notice
from repro.secagg.transport.quiet import Quiet, Report
from repro.secagg.transport.wire import LENGTH_BYTES, FrameReader, frame_header

CHALLENGE_BYTES = 32
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_READS_IN_A_ROW = 64
_SYSTEM_BUFFER = 4 << 20  # Linux lets a socket's send buffer grow to this (tcp_wmem)
_REST = 0.25  # seconds without accepting when descriptors have run out


@dataclass(eq=False)
class Peer:
    """One connection. known: whose it is, once that is proven to the door (see ``tcp_server``);
    hospital: the same, once an ADVERTISE of it has been accepted. challenge: bytes that nobody
    else was sent, for such a proof."""

    channel: Channel
    reader: FrameReader
    known: int | None = None
    hospital: int | None = None
    challenge: bytes = field(default_factory=lambda: secrets.token_bytes(CHALLENGE_BYTES))
    arrived: float = field(default_factory=time.monotonic)
    began: float = 0.0  # when the frame being read was begun, or let into the buffer
    admitted: int = 0  # bytes of the buffer that are kept for its frame
    outgoing: deque[memoryview] = field(default_factory=deque)
    sent: int = 0  # of the answers it has yet to take
    sending: float = 0.0  # since when
    taken: int = 0  # of all answers so far
    idle: float = 0.0  # since when it has taken them all

    @property
    def who(self) -> int | None:
        return self.known if self.hospital is None else self.hospital

    @property
    def name(self) -> str:
        return f"hospital {self.who}" if self.who is not None else self.channel.address

    @property
    def busy(self) -> bool:
        """Whether it is in the middle of a transfer, either way."""
        return bool(self.outgoing) or self.reader.begun


class Peers:
    """Accepts, reads, writes and cuts off; ``poll`` does one turn of all of it.

    capacity: connections at once; greeting: sent to everybody who connects, each peer's own
    challenge behind it; room: bytes of messages in the making; first: the most bytes that a peer
    may begin with. All may be changed between polls.
    """

    def __init__(
        self,
        listener: socket.socket,
        limits: Limits,
        tls: Wraps | None = None,
        report: Report = lambda line: None,
    ) -> None:
        self.limits, self.capacity, self.greeting, self.room = limits, limits.peers, b"", 0
        self.first = ADVERTISE_BYTES
        self.accepting = False
        self._listener, self._tls, self._report = listener, tls, report
        self._said_of_strangers = Quiet(report)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._resting = 0.0  # until when nobody is accepted; 0: not resting
        self._all: set[Peer] = set()
        self._waiting: deque[Peer] = deque()  # for room in the buffer
        self._ready: set[Peer] = set()  # has bytes that the selector does not see
        self._checked = 0.0

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._all))

    def __contains__(self, peer: object) -> bool:
        return peer in self._all

    def poll(self, seconds: float) -> Iterator[tuple[Peer, bytearray]]:
        """One wait of at most ``seconds`` on all sockets; the messages that came of it."""
        events = self._selector.select(0 if self._ready else max(seconds, 0))
        ready, self._ready = self._ready, set()
        for key, mask in events:
            if key.data is None:
                self._accept()
                continue
            peer: Peer = key.data
            if mask & selectors.EVENT_WRITE and peer.channel.established:
                self._flush(peer)
            if mask & selectors.EVENT_READ or not peer.channel.established:
                ready.add(peer)
        for peer in ready:
            yield from self._read(peer)
        self._cut_off()

    def send(self, peer: Peer, message: Buffer) -> None:
        """Queue a message; what the socket takes at once is gone when this returns."""
        if not peer.outgoing:
            peer.sent, peer.sending = 0, time.monotonic()
        peer.outgoing += (memoryview(frame_header(message)), memoryview(message))
        self._flush(peer)

    def close(self, peer: Peer, reason: str = "") -> None:
        if peer not in self._all:
            return
        self._all.discard(peer)
        self._ready.discard(peer)
        if peer.channel.fileno() in self._selector.get_map():
            self._selector.unregister(peer.channel)
        if reason and peer.known is not None and not peer.outgoing:
            tell(peer, reason)
        peer.channel.close()
        if reason:
            said = self._report if peer.who is not None else self._said_of_strangers
            said(f"closed the connection of {peer.name}: {reason}")
        self._let_in(peer)

    def close_all(self) -> None:
        self._waiting.clear()
        for peer in self:
            self.close(peer)

    def shut_down(self) -> None:
        self.close_all()
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as problem:
            if problem.errno in _EXHAUSTED and not self._evict():
                # The listener would wake every poll: leave it alone for a moment.
                self._selector.unregister(self._listener)
                self._resting = time.monotonic() + _REST
            return  # else it has gone away again
        if not self.accepting or (len(self._all) >= self.capacity and not self._evict()):
            connection.close()
            return
        try:
            peer = Peer(Channel(connection, self._tls), FrameReader(self.first))
        except OSError:
            connection.close()
            return
        self._all.add(peer)
        self._watch(peer)
        if peer.channel.established:
            self._greet(peer)

    def _evict(self) -> bool:
        """Make room: the oldest stranger goes, from the host that most strangers come from."""
        strangers = [peer for peer in self._all if peer.who is None]
        if not strangers:
            return False
        crowded = Counter(peer.channel.address for peer in strangers)
        self.close(
            max(strangers, key=lambda peer: (crowded[peer.channel.address], -peer.arrived)),
            "its place is needed, and it has not introduced itself",
        )
        return True

    def _greet(self, peer: Peer) -> None:
        if self.greeting:
            self.send(peer, self.greeting + peer.challenge)

    def _read(self, peer: Peer) -> Iterator[tuple[Peer, bytearray]]:
        for _ in range(_READS_IN_A_ROW):
            if peer not in self._all or peer in self._waiting:
                return
            try:
                message = self._read_once(peer)
            except BlockingIOError:
                return
            except (OSError, Refused) as reason:
                # Who has said all it had to say may go: that is the usual end of a round.
                left = isinstance(reason, ConnectionError) and peer.reader.limit == 0
                self.close(peer, "" if left else str(reason))
                return
            if message is not None:
                yield peer, message
        if peer in self._all and peer.channel.pending():
            self._ready.add(peer)

    def _read_once(self, peer: Peer) -> bytearray | None:
        """Raises BlockingIOError when there is no more to read now."""
        if not peer.channel.established:
            established = peer.channel.establish()
            self._watch(peer)
            if not established:
                raise BlockingIOError
            self._greet(peer)
            return None
        begun = peer.reader.begun
        message = peer.reader.read(peer.channel)
        if not begun:
            peer.began = time.monotonic()
        if message is not None:
            self._let_in(peer)
        elif peer.reader.length and not peer.admitted:
            self._waiting.append(peer)
            self._let_in()
            self._watch(peer)
        return message

    def _let_in(self, leaving: Peer | None = None) -> None:
        """Give the room of ``leaving`` back, and let in who waits, in order, while there is any."""
        if leaving is not None:
            leaving.admitted = 0
        held = sum(peer.admitted for peer in self._all) if self._waiting else 0
        while self._waiting:
            peer = self._waiting[0]
            if peer in self._all and held and held + peer.reader.length > self.room:
                return
            self._waiting.popleft()
            if peer not in self._all:
                continue
            peer.admitted, peer.began = peer.reader.length, time.monotonic()
            held += peer.admitted
            self._watch(peer)
            if peer.channel.pending():
                self._ready.add(peer)

    def _flush(self, peer: Peer) -> None:
        if peer not in self._all:
            return
        try:
            while peer.outgoing:
                count = peer.channel.send(peer.outgoing[0])
                peer.sent += count
                peer.taken += count
                peer.idle = time.monotonic()
                rest = peer.outgoing.popleft()[count:]
                if len(rest):
                    peer.outgoing.appendleft(rest)
        except BlockingIOError:
            pass
        except OSError as reason:
            self.close(peer, str(reason))
            return
        self._watch(peer)

    def _watch(self, peer: Peer) -> None:
        """Listen for what matters of this peer now."""
        if peer not in self._all:
            return
        if not peer.channel.established:
            events = peer.channel.waits_for
        else:
            events = 0 if peer in self._waiting else selectors.EVENT_READ
            events |= selectors.EVENT_WRITE if peer.outgoing else 0
        watched = self._selector.get_map().get(peer.channel)
        if watched is not None and events == watched.events:
            return
        if watched is not None and events:
            self._selector.modify(peer.channel, events, peer)
        elif events:
            self._selector.register(peer.channel, events, peer)
        elif watched is not None:
            self._selector.unregister(peer.channel)

    def _cut_off(self) -> None:
        """Close who is too slow; ten times a second is often enough."""
        now = time.monotonic()
        if now < self._checked + 0.1:
            return
        self._checked = now
        for peer in self:
            reason = self._overdue(peer, now)
            if reason:
                self.close(peer, reason)
        if self._resting and now > self._resting:
            self._resting = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _overdue(self, peer: Peer, now: float) -> str:
        limits = self.limits
        if peer.hospital is None and not (peer.outgoing and peer.known is not None):
            # A hospital is given its time once it has what it was sent, of which some may still
            # be on its way: the system says "sent" when it has put it into its own buffer.
            started = peer.arrived
            if peer.known is not None:
                started = peer.idle + min(peer.taken, _SYSTEM_BUFFER) / limits.rate
            if now > started + limits.introduction:
                return f"it has not introduced itself in {limits.introduction:g} s"
        if peer.outgoing and limits.behind(peer.sent, now - peer.sending):
            return f"it takes less than {limits.rate:g} bytes a second"
        if not peer.reader.begun or peer in self._waiting:
            return ""
        if limits.behind(peer.reader.received - LENGTH_BYTES, now - peer.began):
            return f"it sends less than {limits.rate:g} bytes a second"
        if self._waiting and now > peer.began + limits.longest_turn:
            return f"its message takes more than {limits.longest_turn:g} s, and others wait"
        return ""


def tell(peer: Peer, reason: str) -> None:
    """Say why it is cut off, if its socket takes that at once."""
    words = notice(reason)
    with contextlib.suppress(OSError):
        peer.channel.send(frame_header(words) + words)
