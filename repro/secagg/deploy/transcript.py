"""A party's log of what it sent and received: hash-chained, each line signed.

One JSON object a line. Every entry holds the SHA-256 of the line before it and a signature by
the party's key, so no line can be changed, dropped or put in between afterwards without the
key. What a chain alone cannot show is that its end is missing: note the head (``head``)
somewhere else, or compare with the other parties' logs (``audit``).

A log that has grown to 64 MiB is set aside when the next round begins, as transcript-000001.log and
so on; the one that goes on names the head of the one before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.errors import InputError
from repro.secagg.deploy.entries import wrong_field
from repro.secagg.deploy.keystore import parse_public
from repro.secagg.keys import Identity, verify
from repro.secagg.messages import Buffer
from repro.secagg.rounds import BaseRound

FORMAT = "repro secagg transcript v2"
_PURPOSE = "transcript"
_START = "0" * 64
LARGEST = 64 << 20  # bytes, after which a log is set aside
_RESERVED = {"entry", "time", "event", "previous", "signature"}
Watch = Callable[[str, Mapping[str, Any]], None]  # event, its fields


def unwatched(event: str, fields: Mapping[str, Any]) -> None:
    """Nobody is told."""


class Transcript:
    """An open log. Entries are with the operating system when ``append`` returns (kill -9 loses
    none), on the disk when ``sync`` returns. party: "server" or "hospital"; continues: the head
    of the log before it, if it was another key's (``rotate``); watch: told of each entry."""

    def __init__(
        self,
        path: Path,
        identity: Identity,
        party: str,
        continues: str | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self._path, self._identity, self._party, self._watch = path, identity, party, watch
        path.parent.mkdir(parents=True, exist_ok=True)
        if continues is None and not path.exists():  # killed while the one before was set aside?
            continues = _head_aside(path, identity.public)
        self._open(continues)

    def _open(self, continues: str | None) -> None:
        self._count, self._head, whole = _end_of(self._path, self._identity.public)
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 (``close``)
        torn = self._file.tell() - whole
        if torn:  # the process was killed within a line: that line was never complete
            self._file.truncate(whole)
        more = {} if continues is None else {"continues": continues}
        self.append(
            "opened",
            format=FORMAT,
            public=self._identity.public.hex(),
            torn_bytes=torn,
            party=self._party,
            **more,
        )

    def append(self, event: str, **fields: Any) -> None:
        """One entry. fields: those of the event, see ``entries``."""
        if _RESERVED & set(fields):
            raise InputError("fields", sorted(_RESERVED & set(fields)), "other names")
        if event == "begun" and self._file.tell() >= LARGEST:
            self.close()
            self._path.rename(_next_aside(self._path))
            self._open(self._head)
        entry = {"entry": self._count, "time": round(time.time(), 3), "event": event}
        entry |= {**fields, "previous": self._head}
        entry["signature"] = self._identity.sign(_PURPOSE, _canonical(entry)).hex()
        line = json.dumps(entry).encode()
        self._file.write(line + b"\n")
        self._count, self._head = self._count + 1, hashlib.sha256(line).hexdigest()
        self._watch(event, fields)

    def message(
        self,
        way: str,
        direction: str,
        round_: BaseRound,
        phase: str,
        hospital: int,
        message: Buffer,
    ) -> None:
        """Note a message by its digest. way: "sent" or "received"; direction: "up", from
        ``hospital`` to the server, or "down"; phase: the one it is said in, or answered in."""
        self.append(
            "message",
            way=way,
            direction=direction,
            session=round_.session.hex(),
            round=round_.number,
            phase=phase,
            hospital=hospital,
            bytes=len(message),
            digest=hashlib.sha256(message).hexdigest(),
        )

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()


@contextlib.contextmanager
def open_transcript(
    path: Path,
    identity: Identity,
    party: str,
    continues: str | None = None,
    watch: Watch = unwatched,
) -> Iterator[Transcript]:
    transcript = Transcript(path, identity, party, continues, watch)
    try:
        yield transcript
    finally:
        transcript.close()


@dataclass(frozen=True)
class Log:
    """A verified log. public: whose; entries: all, in order; head: SHA-256 of the last line;
    torn_bytes: an incomplete last line, which is not part of it."""

    public: bytes
    entries: tuple[dict[str, Any], ...]
    head: str
    torn_bytes: int


def read_log(path: Path, public: bytes | None = None) -> Log:
    """Verify every line and every field. public: whose log it has to be, if that is known.

    Raises InputError that names the first line that is wrong.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise InputError("log", str(path), f"a readable file ({problem.strerror})") from None
    *lines, torn = content.split(b"\n")
    if not lines:
        raise InputError("log", str(path), f"a {FORMAT} with at least one line")
    entries, head = [], _START
    for number, line in enumerate(lines):
        entry = _parsed(path, number, line)
        if number == 0:
            owner = _owner(path, entry)
        if entry.get("previous") != head or entry.get("entry") != number:
            raise _wrong(path, number, "an entry that follows the line before it")
        signature = entry.pop("signature", "")
        if not verify(owner, _PURPOSE, _canonical(entry), _bytes(signature)):
            raise _wrong(path, number, "its owner's signature under what it says")
        # What is signed is what a line says; blanks, or the case of the signature, say nothing.
        if line != json.dumps(entry | {"signature": _bytes(signature).hex()}).encode():
            raise _wrong(path, number, "a line as its owner wrote it")
        field = wrong_field(entry)
        if field:
            shown = json.dumps(entry.get(field))[:80]
            expected = f"a {FORMAT}'s {field}, not {shown}"
            raise _wrong(path, number, expected)
        entries.append(entry)
        head = hashlib.sha256(line).hexdigest()
    if public is not None and owner != public:
        raise InputError("log's key", owner.hex(), public.hex())
    return Log(owner, tuple(entries), head, len(torn))


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}-{'[0-9]' * 6}{path.suffix}"))


def _next_aside(path: Path) -> Path:
    """A name after the last one: whoever has taken earlier ones away loses none by it."""
    earlier = _set_aside(path)
    number = int(earlier[-1].stem[-6:]) + 1 if earlier else 1
    return path.with_name(f"{path.stem}-{number:06d}{path.suffix}")


def _head_aside(path: Path, public: bytes) -> str | None:
    """Head of the log that was set aside last; None if none was, or it was another key's."""
    earlier = _set_aside(path)
    try:
        return _end_of(earlier[-1], public)[1] if earlier else None
    except InputError:
        return None


def _end_of(path: Path, public: bytes) -> tuple[int, str, int]:
    """(entries, head, bytes of whole lines) of a log to be gone on with.

    Only its end is looked at: to verify it all is the auditor's business.
    """
    if not path.exists() or path.stat().st_size == 0:
        return 0, _START, 0
    with open(path, "rb") as file:
        size, step = file.seek(0, os.SEEK_END), 1 << 16
        while True:
            file.seek(max(size - step, 0))
            tail = file.read()
            lines = tail.split(b"\n")
            if len(lines) > 2 or step >= size:
                break
            step *= 4
    if len(lines) < 2:  # the very first line was never finished
        return 0, _START, 0
    last = lines[-2]
    entry = _parsed(path, -1, last)
    signature = entry.pop("signature", "")
    if not verify(public, _PURPOSE, _canonical(entry), _bytes(signature)):
        expected = (
            "a log of this key, unchanged at its end; a new key is taken into use by "
            f"`repro secagg rotate --state {path.parent} --old OLD.key --new NEW.key`"
        )
        raise InputError("log", str(path), expected)
    return int(entry["entry"]) + 1, hashlib.sha256(last).hexdigest(), size - len(lines[-1])


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise _wrong(path, number, "one JSON object")
    return entry


def _owner(path: Path, first: dict[str, Any]) -> bytes:
    if first.get("format") != FORMAT:
        raise InputError("log", str(path), f"a {FORMAT}")
    return parse_public(str(first.get("public")))


def _wrong(path: Path, number: int, expected: str) -> InputError:
    line = f"line {number + 1}" if number >= 0 else "last line"
    return InputError("log", f"{path}, {line}", expected)


def _canonical(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def _bytes(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        return b""
