"""A non-blocking connection, bare or under TLS, with one set of errors for both.

``recv_into`` and ``send`` raise BlockingIOError when the socket is not ready, OSError when it is
broken; ``pending`` says that bytes lie ready inside the TLS layer, where no selector sees them.
"""

from __future__ import annotations

import selectors
import socket
import ssl

from repro.secagg.messages import Buffer
from repro.secagg.transport.following import Wraps

_CHUNK = 1 << 16  # a send that would block is repeated with the very same bytes


class Channel:
    """The server's end of one accepted connection. address: the peer's host, as text."""

    def __init__(self, connection: socket.socket, tls: Wraps | None) -> None:
        connection.setblocking(False)
        self.address = _host(connection)
        self.waits_for = selectors.EVENT_READ  # while ``established`` is False
        self.established = tls is None
        self._socket = connection
        if tls is not None:
            self._socket = tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )

    def fileno(self) -> int:
        return self._socket.fileno()

    def establish(self) -> bool:
        """Go on with the TLS handshake; whether the channel is ready. OSError if it failed."""
        if isinstance(self._socket, ssl.SSLSocket) and not self.established:
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                self.waits_for = selectors.EVENT_READ
                return False
            except ssl.SSLWantWriteError:
                self.waits_for = selectors.EVENT_WRITE
                return False
            self.established = True
        return True

    def recv_into(self, buffer: memoryview, /) -> int:
        try:
            return self._socket.recv_into(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send(self, message: Buffer) -> int:
        try:
            return self._socket.send(memoryview(message)[:_CHUNK])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def pending(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def close(self) -> None:
        self._socket.close()


def _host(connection: socket.socket) -> str:
    try:
        name = connection.getpeername()
    except OSError:  # it has gone away again
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""
