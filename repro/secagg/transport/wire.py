"""Frames on a stream: the length of a message, 8 bytes little-endian, then the message.

A length beyond what the receiver allows at that moment is refused before anything of the
message is read or room is made for it.
"""

from __future__ import annotations

import socket
import struct

from repro.secagg.errors import Refused
from repro.secagg.messages import Buffer

_LENGTH = struct.Struct("<Q")
LENGTH_BYTES = _LENGTH.size


def frame_header(message: Buffer) -> bytes:
    return _LENGTH.pack(len(message))


def frame_length(header: Buffer, limit: int) -> int:
    """The length in a header of 8 bytes; Refused if it is zero or above ``limit``."""
    length = int(_LENGTH.unpack(header)[0])
    if not 0 < length <= limit:
        raise Refused(f"a frame of {length} bytes; at most {limit} are allowed here")
    return length


def send_frame(connection: socket.socket, message: Buffer) -> None:
    """Send one message on a blocking socket. Raises OSError if the other end is gone."""
    connection.sendall(frame_header(message))
    connection.sendall(message)


def receive_frame(connection: socket.socket, limit: int) -> bytearray:
    """Receive one message from a blocking socket.

    Raises Refused for an oversized frame or an end in mid-frame, OSError (TimeoutError among
    them) for what the socket itself runs into.
    """
    header = bytearray(LENGTH_BYTES)
    _receive_exactly(connection, header)
    message = bytearray(frame_length(header, limit))
    _receive_exactly(connection, message)
    return message


def _receive_exactly(connection: socket.socket, room: bytearray) -> None:
    with memoryview(room) as view:
        filled = 0
        while filled < len(room):
            count = connection.recv_into(view[filled:])
            if count == 0:
                raise Refused("the connection ended in the middle of a message")
            filled += count


class FrameReader:
    """Puts one message after another together from a non-blocking socket.

    ``limit`` may be changed between messages. Room for a message is made once its length is
    known and ``may_start`` has been answered with yes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._header = bytearray()
        self._body: bytearray | None = None
        self._filled = 0
        self.length = 0  # of the message being read; 0 while its length is not known

    def read(self, connection: socket.socket) -> bytearray | None:
        """What there is to read now; a message if that completes one.

        Raises Refused for an oversized frame, ConnectionError at the end of the stream.
        """
        if self.length == 0:
            self._read_header(connection)
            return None
        if self._body is None:
            self._body = bytearray(self.length)
        with memoryview(self._body) as view:
            self._filled += _some(connection.recv_into(view[self._filled :]))
        if self._filled < self.length:
            return None
        message, self._body = self._body, None
        self.length = self._filled = 0
        return message

    def _read_header(self, connection: socket.socket) -> None:
        received = connection.recv(LENGTH_BYTES - len(self._header))
        _some(len(received))
        self._header += received
        if len(self._header) == LENGTH_BYTES:
            self.length = frame_length(self._header, self.limit)
            self._header.clear()


def _some(count: int) -> int:
    if count == 0:
        raise ConnectionResetError("the other end has closed the connection")
    return count
