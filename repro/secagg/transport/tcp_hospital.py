"""A hospital on a TCP socket: it connects, answers five times, and is done."""

from __future__ import annotations

import socket
from collections.abc import Callable

import numpy as np

from repro.secagg.errors import Refused
from repro.secagg.hospital import Hospital
from repro.secagg.messages import Buffer, max_message_bytes
from repro.secagg.transport.wire import receive_frame, send_frame

Watch = Callable[[str, str], None]


def take_part(
    address: tuple[str, int],
    hospital: Hospital,
    vector: Callable[[], np.ndarray],
    *,
    timeout: float = 120.0,
    watch: Watch = lambda phase, moment: None,
) -> None:
    """Take ``hospital`` through its round with the server at ``address``.

    vector: makes the (dimension,) field elements when they are needed. timeout: seconds the
    hospital waits for any one message. watch: called as (phase, "before" | "after") around
    every message it sends.
    Raises Refused when the server cheats or ends the round, OSError when it is gone.
    """
    limit = max_message_bytes(hospital.round)
    answers: dict[str, Callable[[Buffer], Buffer]] = {
        "share": hospital.share_keys,
        "masked": lambda message: hospital.masked_input(message, vector()),
        "consistency": hospital.consistency_check,
        "unmask": hospital.unmask,
    }
    with socket.create_connection(address, timeout=timeout) as connection:
        _speak(connection, "advertise", hospital.advertise_keys(), watch)
        for phase, answer in answers.items():
            message = receive_frame(connection, limit)
            _speak(connection, phase, answer(message), watch)


def _speak(connection: socket.socket, phase: str, message: Buffer, watch: Watch) -> None:
    watch(phase, "before")
    try:
        send_frame(connection, message)
    except (BrokenPipeError, ConnectionResetError):
        raise Refused("the server has ended the connection") from None
    watch(phase, "after")
