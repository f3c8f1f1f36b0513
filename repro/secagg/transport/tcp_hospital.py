"""A hospital on a TCP socket: it connects, answers until the round is over, and is done."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable

import numpy as np

from repro.secagg.errors import Refused
from repro.secagg.hospital import Contribution
from repro.secagg.messages import Buffer
from repro.secagg.protocols import HospitalParty, protocol_of
from repro.secagg.transport.following import Wraps
from repro.secagg.transport.notice import said
from repro.secagg.transport.wire import RATE, Deadline, receive_frame, send_frame

Watch = Callable[[str, str], None]
Observe = Callable[[str, str, Buffer], None]  # way, phase, message


def take_part(
    address: tuple[str, int],
    hospital: HospitalParty,
    contribution: Callable[[], Contribution | np.ndarray],
    *,
    timeout: float = 120.0,
    watch: Watch = lambda phase, moment: None,
    tls: Wraps | None = None,
) -> None:
    """Take ``hospital`` through its round with the server at ``address``.

    contribution: makes it when it is needed. timeout: seconds the hospital waits for any one
    message, what its bytes take at ``RATE`` not counted. watch: called as (phase, "before" |
    "after") around every message it sends. tls: a hospital's context.
    Raises Refused when the server cheats or ends the round, OSError when it is gone.
    """
    with connect(address, timeout=timeout, tls=tls) as connection:
        converse(connection, hospital, contribution, timeout=timeout, watch=watch)


def connect(
    address: tuple[str, int],
    *,
    timeout: float,
    tls: Wraps | None = None,
    server_name: str | None = None,
    proxy: tuple[str, int] | None = None,
) -> socket.socket:
    """A connection to the server, under TLS if a context is given. Raises OSError.

    server_name: the name its certificate has to bear, if not the host of ``address``. proxy: an
    HTTP proxy that is asked to CONNECT; it sees the server's name and TLS records. Only with TLS.
    """
    deadline = Deadline(timeout)
    if proxy is None:
        connection = socket.create_connection(address, timeout=deadline.left())
    else:
        assert tls is not None
        connection = _through(proxy, address, deadline.left())
    if tls is None:
        return connection
    try:
        connection.settimeout(deadline.left())
        return tls.wrap_socket(connection, server_hostname=server_name or address[0])
    except BaseException:
        connection.close()
        raise


def _through(proxy: tuple[str, int], address: tuple[str, int], timeout: float) -> socket.socket:
    """A connection by HTTP CONNECT (RFC 9110, section 9.3.6). What the other end says first may
    be lost, so it must be a protocol in which the client does, such as TLS."""
    tunnel = http.client.HTTPConnection(*proxy, timeout=timeout)
    tunnel.set_tunnel(*address)
    try:
        tunnel.connect()
    except http.client.HTTPException as problem:
        tunnel.close()
        raise OSError(f"proxy {proxy[0]}:{proxy[1]}: {problem!r}") from None
    connection: socket.socket = tunnel.sock
    return connection


def converse(
    connection: socket.socket,
    hospital: HospitalParty,
    contribution: Callable[[], Contribution | np.ndarray],
    *,
    timeout: float = 120.0,
    rate: float = RATE,
    watch: Watch = lambda phase, moment: None,
    observe: Observe = lambda way, phase, message: None,
) -> None:
    """``take_part`` on a connection that is there already.

    rate: bytes a second that the server has to reach, beside ``timeout``. observe: called with
    every message, before it is sent and after it was received.
    """
    protocol = protocol_of(hospital.round)
    limit = protocol.longest(hospital.round)

    def speak(phase: str, message: Buffer) -> None:
        observe("sent", phase, message)
        watch(phase, "before")
        try:
            send_frame(connection, message, Deadline(timeout, rate))
        except (BrokenPipeError, ConnectionResetError):
            raise Refused("the server has ended the connection") from None
        watch(phase, "after")

    speak("advertise", hospital.advertise_keys())
    while hospital.phase != "done":
        message = listen(connection, limit, Deadline(timeout, rate))
        phase = protocol.phase_of(message)
        observe("received", phase, message)
        speak(phase, hospital.answer(message, contribution))


def listen(connection: socket.socket, limit: int, deadline: Deadline) -> bytearray:
    """``receive_frame``, or Refused with the reason where the server says why it ends."""
    message = receive_frame(connection, limit, deadline)
    reason = said(message)
    if reason:
        raise Refused(f"the server says: {reason}")
    return message
