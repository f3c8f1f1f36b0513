"""A hospital behind a Unix socket: one message in, its answer out.

For networks that bring messages through processes that live for one message each, such as
Flower's: the secrets of a round stay in this process, the others only carry bytes. A request is
a frame with an announcement or a message of the server's; the answer is a frame of one byte
(``OK`` or ``REFUSED``) and the message, or the reason.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from repro.secagg.deploy.announcement import ANNOUNCEMENT_BYTES, is_announcement
from repro.secagg.deploy.member import Member, Prepare, Report, Taking, open_member
from repro.secagg.deploy.place import Place
from repro.secagg.errors import Refused
from repro.secagg.messages import Buffer, max_message_bytes, phase_of
from repro.secagg.transport.wire import Deadline, receive_frame, send_frame

OK, REFUSED = b"+", b"-"
_LOCAL = 30.0  # seconds for one exchange on this machine


def run_agent(
    place: Place,
    path: Path,
    prepare: Prepare,
    *,
    rounds: int | None = None,
    report: Report = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Answer on the Unix socket ``path`` until ``rounds`` are completed; how many were.

    stop: asked once a second whether to end. The socket is for this user only (0600).
    """
    path.unlink(missing_ok=True)
    completed = 0
    with (
        open_member(place, prepare, report) as member,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(8)
        listener.settimeout(1.0)
        agent = _Agent(member)
        report(f"answering on {path}")
        while (rounds is None or completed < rounds) and not stop():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError, Refused):
                    completed += agent.serve(connection)
    path.unlink(missing_ok=True)
    return completed


def ask_agent(path: Path, message: Buffer, limit: int, seconds: float = _LOCAL) -> bytes:
    """The agent's answer to an announcement or message. Raises Refused with its reason."""
    deadline = Deadline(seconds)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(deadline.left())
        connection.connect(str(path))
        send_frame(connection, message, deadline)
        answered = bytes(receive_frame(connection, limit, deadline))
    if answered[:1] != OK:
        raise Refused(answered[1:].decode(errors="replace"))
    return answered[1:]


class _Agent:
    def __init__(self, member: Member) -> None:
        self._member = member
        self._taking: Taking | None = None

    def serve(self, connection: socket.socket) -> int:
        """One request; 1 if it was a round's last."""
        directory = self._member.directory()
        round_ = directory.round(1)
        limit = max(ANNOUNCEMENT_BYTES, max_message_bytes(round_))
        request = receive_frame(connection, limit, Deadline(_LOCAL))
        last = 0
        try:
            if is_announcement(request):
                reply = OK + self._begin(request)
            else:
                message, last = self._answer(request)
                reply = OK + message
        except Refused as reason:
            self._member.report(f"refused: {reason}")
            reply = REFUSED + str(reason).encode()
        send_frame(connection, reply, Deadline(_LOCAL))
        if last and self._taking is not None:
            self._member.finished(self._taking)
            self._taking = None
        return last

    def _begin(self, raw: Buffer) -> bytes:
        directory = self._member.directory()
        announcement = self._member.heard(raw, directory)
        stale = self._member.stale(announcement)
        if stale:
            raise Refused(stale)
        if announcement.length:
            raise Refused("a round about an application, which only `join --server` can be sent")
        self._member.prepare(announcement, directory)
        self._taking = self._member.begin(directory, announcement)
        message = self._taking.hospital.advertise_keys()
        self._taking.witness("sent", "advertise", message)
        return bytes(message)

    def _answer(self, request: Buffer) -> tuple[bytes, int]:
        taking = self._taking
        if taking is None:
            raise Refused("a message of a round that this hospital is not in")
        phase = phase_of(request)
        taking.witness("received", phase, request)
        message = bytes(taking.hospital.answer(request, taking.give))
        taking.witness("sent", phase, message)
        return message, int(taking.hospital.phase == "done")
