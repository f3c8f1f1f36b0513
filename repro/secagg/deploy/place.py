"""Where one party of a federation keeps its key, its directory and its state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from repro.secagg.deploy.counter import MISSED
from repro.secagg.deploy.directory import PinnedDirectory


@dataclass(frozen=True)
class Place:
    """Where a party keeps its things. key: its private key; directory: the operator's file;
    operator: the public key that signs it; state: a folder of this party's own."""

    key: Path
    directory: Path
    operator: bytes
    state: Path
    missed: int = MISSED

    def pinned(self) -> PinnedDirectory:
        return PinnedDirectory(self.directory, self.operator, self.state / "directory.json")
