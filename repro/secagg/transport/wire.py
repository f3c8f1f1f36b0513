"""Frames on a stream: the length of a message, 8 bytes little-endian, then the message.

A length beyond what the receiver allows at that moment is refused before anything of the
message is read or room is made for it. Every wait has a deadline that only bytes move on, each
by what it takes at the smallest rate allowed: a slow line is waited for, a dripping peer is not.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Protocol, runtime_checkable

from repro.secagg.errors import Refused
from repro.secagg.messages import Buffer

RATE = 65536.0  # bytes a second that a peer has to reach, unless said otherwise
_LENGTH = struct.Struct("<Q")
LENGTH_BYTES = _LENGTH.size
_CHUNK = 1 << 16


@runtime_checkable
class Source(Protocol):
    """What a ``FrameReader`` reads from: raises BlockingIOError when there is nothing now."""

    def recv_into(self, buffer: memoryview, /) -> int: ...


class Deadline:
    """A moment by which a wait is over: ``seconds`` from now, and 1/rate s later for each byte
    that has gone through. n bytes are through after seconds + n/rate or never."""

    def __init__(self, seconds: float, rate: float = RATE) -> None:
        self._begun = time.monotonic()
        self._at, self._rate, self._bytes = self._begun + seconds, rate, 0

    def left(self) -> float:
        """Seconds left, above 0; raises TimeoutError when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"the other end has not answered in time{self.progress}")
        return left

    def moved(self, count: int) -> None:
        """``count`` more bytes have gone through."""
        self._at += count / self._rate
        self._bytes += count

    @property
    def progress(self) -> str:
        """How far the transfer has come, in words; empty if it has not begun."""
        if not self._bytes:
            return ""
        seconds = time.monotonic() - self._begun
        return f" ({self._bytes / 1e6:.3g} MB came through in {seconds:.3g} s)"


def frame_header(message: Buffer) -> bytes:
    return _LENGTH.pack(len(message))


def frame_length(header: Buffer, limit: int) -> int:
    """The length in a header of 8 bytes; Refused if it is zero or above ``limit``."""
    length = int(_LENGTH.unpack(header)[0])
    if not 0 < length <= limit:
        raise Refused(f"a frame of {length} bytes; at most {limit} are allowed here")
    return length


def send_frame(
    connection: socket.socket, message: Buffer, deadline: Deadline | None = None
) -> None:
    """Send one message on a blocking socket.

    Raises OSError if the other end is gone, TimeoutError (one) if it falls behind the
    deadline; without a deadline the socket's own time-out holds.
    """
    for part in (frame_header(message), message):
        if deadline is None:
            connection.sendall(part)
            continue
        with memoryview(part) as view:  # under TLS, sendall's time-out would begin anew each time
            sent = 0
            while sent < len(view):
                connection.settimeout(deadline.left())
                count = connection.send(view[sent : sent + _CHUNK])
                deadline.moved(count)
                sent += count


def receive_frame(
    connection: socket.socket, limit: int, deadline: Deadline | None = None
) -> bytearray:
    """Receive one message from a blocking socket.

    deadline: see ``Deadline``; without one the socket's own time-out holds for each read.
    Raises Refused for an oversized frame or an end in mid-frame, OSError (TimeoutError among
    them) for what the socket itself runs into.
    """
    header = bytearray(LENGTH_BYTES)
    _receive_exactly(connection, header, deadline)
    message = bytearray(frame_length(header, limit))
    _receive_exactly(connection, message, deadline)
    return message


def _receive_exactly(connection: socket.socket, room: bytearray, deadline: Deadline | None) -> None:
    with memoryview(room) as view:
        filled = 0
        while filled < len(room):
            if deadline is not None:
                connection.settimeout(deadline.left())
            try:
                count = connection.recv_into(view[filled:])
            except TimeoutError:
                if deadline is not None:
                    deadline.left()  # says how far it had come
                raise
            if count == 0:
                where = ""
                if filled or len(room) > LENGTH_BYTES:
                    of = f" of {len(room) / 1e6:.3g} MB" if len(room) > LENGTH_BYTES else ""
                    where = f" in the middle of a message{of}"
                    where += deadline.progress if deadline is not None else ""
                raise Refused(f"the other end has closed the connection{where}")
            if deadline is not None:
                deadline.moved(count)
            filled += count


class FrameReader:
    """Puts one message after another together from a non-blocking source.

    ``limit`` may be changed between messages; 0 allows none. ``length`` is the length of the
    message being read (0 while it is not known), ``received`` how much of it, header included,
    has come. Room for a message is made at the first read after its length is known.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.length = 0
        self.received = 0
        self._header = bytearray(LENGTH_BYTES)
        self._body: bytearray | None = None

    @property
    def begun(self) -> bool:
        """Whether anything of the next message has come."""
        return self.received > 0

    def read(self, source: Source) -> bytearray | None:
        """What there is to read now; a message if that completes one.

        Raises Refused for an oversized frame, ConnectionError at the end of the stream,
        BlockingIOError if there is nothing.
        """
        if self.length == 0:
            self._read_header(source)
            return None
        if self._body is None:
            self._body = bytearray(self.length)
        with memoryview(self._body) as view:
            self.received += _some(source.recv_into(view[self.received - LENGTH_BYTES :]))
        if self.received < LENGTH_BYTES + self.length:
            return None
        message, self._body = self._body, None
        self.length = self.received = 0
        return message

    def _read_header(self, source: Source) -> None:
        with memoryview(self._header) as view:
            self.received += _some(source.recv_into(view[self.received :]))
        if self.received == LENGTH_BYTES:
            self.length = frame_length(self._header, self.limit)


def _some(count: int) -> int:
    if count == 0:
        raise ConnectionResetError("the other end has closed the connection")
    return count
