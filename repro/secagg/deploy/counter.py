"""Which rounds have been begun, in a file that outlives the process.

A number is on the disk before anything of its round is sent, so after kill -9 at any moment the
same number is never used again: old messages under it cannot be played against new ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from repro.errors import InputError
from repro.files import write_whole
from repro.secagg.counter import check_next

MISSED = 16
_LOST = "lost: `repro secagg recover --state DIR --key NEW.key`"


class FileCounter:
    """Session -> the last round begun. One process at a time: ``open_counter`` holds its lock.

    missed: how many rounds may have been held without this party since its last one. The order
    of neighbours is a hash of the round's number among others, so each number that may be left
    out is one more draw for a server that would choose the neighbours.
    """

    def __init__(self, path: Path, missed: int = MISSED) -> None:
        if missed < 0:
            raise InputError("missed", missed, "0 or more rounds")
        self._path, self._missed = path, missed
        self._last = _read(path)

    def last(self, session: bytes) -> int:
        """The last round begun; 0 if there was none (rounds are numbered from 1)."""
        return self._last.get(session.hex(), 0)

    def obstacle(self, session: bytes, number: int) -> str:
        """Why a round cannot be begun (it is not after the last one, or too far after it), and
        what helps; empty if it can."""
        last = self.last(session)
        if number < last:
            return (
                f"round {number} is open, but this hospital has been in round {last}: the server "
                "has lost its state or goes by an older one (`repro secagg recover` at the server)"
            )
        if number == last:
            return f"round {number} is open, and was begun before; waiting"
        if number > last + 1 + self._missed:
            return (
                f"round {number} is open, and this hospital's last was {last}: at most "
                f"{self._missed} may be missed (--missed). The operator has to begin a new session "
                "(`repro secagg directory FILE --new-session`)"
            )
        return ""

    def advance(self, session: bytes, number: int) -> None:
        """Begin round ``number``: it is durable when this returns.

        Raises Refused for one that is not after the last, or too far after it.
        """
        check_next(self.last(session), number, self._missed)
        content = {**self._last, session.hex(): number}
        write_whole(self._path, json.dumps(content, indent=1) + "\n", mode=0o600)
        self._last = content


@contextlib.contextmanager
def open_counter(path: Path, missed: int = MISSED) -> Iterator[FileCounter]:
    """The counter, locked against a second process; InputError if one has it, or if the log
    beside it says that the counter is lost."""
    with locked(path.parent):
        if not path.exists() and _has_begun(path.with_name("transcript.log")):
            raise InputError(
                "round counter", str(path), f"the counter that the log goes with; {_LOST}"
            )
        yield FileCounter(path, missed)


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """A state folder, made if it is not there, kept from a second process; InputError if one has
    it. The system frees the lock when the process ends, however it ends."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = open(state / "rounds.json.lock", "a", encoding="utf-8")  # noqa: SIM115
    except OSError as problem:
        expected = f"a folder that can be created and written to ({problem.strerror})"
        raise InputError("state", str(state), expected) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError("state", str(state), "no other process using it") from None
        yield


def _read(path: Path) -> dict[str, int]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        expected = f"a readable counter ({problem}); {_LOST}"
        raise InputError("round counter", str(path), expected) from None
    if not isinstance(content, dict) or not all(
        isinstance(number, int) and number >= 0 for number in content.values()
    ):
        raise InputError("round counter", str(path), f"session -> number; {_LOST}")
    return {str(session): int(number) for session, number in content.items()}


def _has_begun(log: Path) -> bool:
    """Whether a log says that a round was begun."""
    try:
        with open(log, "rb") as lines:
            return any(b'"event": "begun"' in line for line in lines)
    except OSError:
        return False
