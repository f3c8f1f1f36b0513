"""A run's state after a round, on disk whole or not at all."""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import Any

import torch

from repro.files import write_whole
from repro.random import RootSeed

NAME = "checkpoint.pt"
_HASH_BYTES = 32


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """``state``: tensors, numbers, strings, bytes and containers of them (no pickled code)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    write_whole(folder / NAME, hashlib.sha256(body).digest() + body)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The last state saved, or None when there is none.

    A damaged file (a failing disk: our own writes are atomic) is named on stderr and ignored.
    The run then starts over and, being deterministic, arrives at the same bits.
    """
    path = folder / NAME
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, body = content[:_HASH_BYTES], content[_HASH_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        print(f"repro: {path} is damaged; the run starts from round 0", file=sys.stderr)
        return None
    result: dict[str, Any] | None = torch.load(io.BytesIO(body), weights_only=True)
    return result


def saved_seed(folder: Path) -> RootSeed | None:
    """The root seed a run in ``folder`` began with; None when there is none to go on with."""
    state = load_checkpoint(folder)
    if state is None or state["seed"] is None:
        return None
    return RootSeed(state["seed"]["root"], state["seed"]["source"])


def forget_seed(folder: Path) -> None:
    """Remove a private root seed from a finished run's checkpoint, kept to go on from.

    Whoever has the root can subtract the noise. A seed that the user gave is no secret and
    stays, so that going on gives the bits of a longer run.
    """
    state = load_checkpoint(folder)
    if state is not None and state["seed"]["source"] != "user seed":
        state["seed"] = None
        save_checkpoint(folder, state)
