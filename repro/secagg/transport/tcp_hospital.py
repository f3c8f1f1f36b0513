"""A hospital on a TCP socket: it connects, answers until the round is over, and is done."""

from __future__ import annotations

import socket
from collections.abc import Callable

import numpy as np

from repro.secagg.errors import Refused
from repro.secagg.hospital import Contribution, Hospital
from repro.secagg.messages import Buffer, max_message_bytes, phase_of
from repro.secagg.transport.wire import receive_frame, send_frame

Watch = Callable[[str, str], None]


def take_part(
    address: tuple[str, int],
    hospital: Hospital,
    vector: Callable[[], Contribution | np.ndarray],
    *,
    timeout: float = 120.0,
    watch: Watch = lambda phase, moment: None,
) -> None:
    """Take ``hospital`` through its round with the server at ``address``.

    vector: makes the contribution when it is needed. timeout: seconds the
    hospital waits for any one message. watch: called as (phase, "before" | "after") around
    every message it sends.
    Raises Refused when the server cheats or ends the round, OSError when it is gone.
    """
    limit = max_message_bytes(hospital.round)
    with socket.create_connection(address, timeout=timeout) as connection:
        _speak(connection, "advertise", hospital.advertise_keys(), watch)
        while hospital.phase != "done":
            message = receive_frame(connection, limit)
            reply = hospital.answer(message, vector)
            _speak(connection, phase_of(message), reply, watch)


def _speak(connection: socket.socket, phase: str, message: Buffer, watch: Watch) -> None:
    watch(phase, "before")
    try:
        send_frame(connection, message)
    except (BrokenPipeError, ConnectionResetError):
        raise Refused("the server has ended the connection") from None
    watch(phase, "after")
