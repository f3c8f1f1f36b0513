"""Where one party of a federation keeps its key, its directory and its state."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from repro.errors import InputError
from repro.files import write_whole
from repro.secagg.deploy.announcement import STATE_BYTES
from repro.secagg.deploy.counter import MISSED
from repro.secagg.deploy.directory import PinnedDirectory
from repro.secagg.deploy.transcript import Watch, unwatched
from repro.secagg.transport.quiet import Report


@dataclass(frozen=True)
class Place:
    """Where a party keeps its things. key: its private key; directory: the operator's file;
    operator: the public key that signs it; state: a folder of this party's own. watch: told of
    every entry of its log, see ``Monitor``."""

    key: Path
    directory: Path
    operator: bytes
    state: Path
    missed: int = MISSED
    watch: Watch = unwatched

    def pinned(self, report: Report = lambda line: None) -> PinnedDirectory:
        return PinnedDirectory(self.directory, self.operator, self.state / "directory.json", report)


def state_id(state: Path) -> bytes:
    """16 bytes that name this state folder and no other, drawn when it is first used."""
    path = state / "id"
    if not path.exists():
        write_whole(path, secrets.token_bytes(STATE_BYTES).hex() + "\n", mode=0o600)
    try:
        name = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        name = b""
    if len(name) != STATE_BYTES:
        raise InputError("state", str(path), f"{2 * STATE_BYTES} hexadecimal digits")
    return name
