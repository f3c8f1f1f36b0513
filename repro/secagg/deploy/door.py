"""Who gets into an open round over TCP: hospitals that prove who they are, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from repro.errors import InputError
from repro.files import write_whole
from repro.secagg.deploy.announcement import WELCOME, Announcement, Hello
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer
from repro.secagg.transport.quiet import Report
from repro.secagg.transport.tcp_server import NotWelcome


class KnownStates:
    """Public key -> the state folder it came with first, in a file. A key that comes with
    another one is a copy, or its counter is lost: either could repeat a round."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict) or not all(isinstance(x, str) for x in content.values()):
            raise InputError("known states", str(path), "key -> state folder, or no such file")
        self._known: dict[str, str] = content

    def check(self, public: bytes, state: bytes) -> bool:
        """Whether the key has come with this state folder only; the first is kept."""
        key, name = public.hex(), state.hex()
        if key not in self._known:
            write_whole(self._path, json.dumps(self._known | {key: name}, indent=1) + "\n")
            self._known[key] = name
        return self._known[key] == name


class RoundDoor:
    """The ``Door`` of a round. hospitals: id -> public key, of the directory; report: told of
    what the hospitals' words say about this server's own state."""

    def __init__(
        self,
        announcement: Announcement,
        server: Identity,
        hospitals: Mapping[int, bytes],
        states: KnownStates,
        report: Report,
    ) -> None:
        self.greeting = announcement.to_bytes(server)
        self._number, self._hospitals = announcement.number, hospitals
        self._states, self._report = states, report
        self._welcome = WELCOME + announcement.application

    @property
    def largest(self) -> int:
        return len(self._welcome)

    def enter(self, hello: Buffer, challenge: bytes) -> tuple[int, Buffer]:
        """The hospital, and its welcome: with the application if it wants it."""
        said = Hello.from_bytes(hello, self._hospitals, self.greeting, challenge)
        if said.last > self._number > 0:
            self._report(
                f"hospital {said.hospital} has been in round {said.last}, and round {self._number} "
                "is open: this server has lost its state or goes by an older one "
                "(`repro secagg recover`)"
            )
        if not self._states.check(self._hospitals[said.hospital], said.state):
            raise NotWelcome(
                said.hospital,
                "its key came with another state folder before: a copied key, or a lost state "
                "(then `repro secagg recover` at the hospital)",
            )
        return said.hospital, self._welcome if said.wants else WELCOME
