"""A run's state after a round, on disk whole or not at all."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from repro.errors import InputError
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


def load_checkpoint(folder: Path, *, private: bool = False) -> dict[str, Any] | None:
    """The last state saved, or None when there is none.

    A damaged file (a failing disk: our own writes are atomic) is named on stderr and ignored: with
    a seed that the user gave, the run starts over and arrives at the same bits.
    private: the seed came from the operating system, and the file held its only copy and all that
        is known of what was spent. Starting over would release, and spend, anew: InputError.
    """
    path = folder / NAME
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, body = content[:_HASH_BYTES], content[_HASH_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        if private:
            raise InputError(
                "checkpoint",
                f"{path.parent.name}/{NAME}, damaged",
                "it whole: it has the private seed and what was spent; delete the run's folder to "
                "begin another run, and count what this one released as spent too",
            )
        print(f"repro: {path} is damaged; the run starts from round 0", file=sys.stderr)
        return None
    result: dict[str, Any] | None = torch.load(io.BytesIO(body), weights_only=True)
    return result


def saved_seed(folder: Path, *, private: bool = False) -> RootSeed | None:
    """The root seed a run in ``folder`` began with; None when there is none to go on with.

    private: see ``load_checkpoint``.
    """
    state = load_checkpoint(folder, private=private)
    return None if state is None else _seed_in(state)


def _seed_in(state: Mapping[str, Any]) -> RootSeed | None:
    """None in a finished run's checkpoint, after ``forget_seed``."""
    seed = state["seed"]
    return None if seed is None else RootSeed(seed["root"], seed["source"])


def check_same_machine(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """A private run goes on only where it was begun, by the same code.

    The round that was cut short is done again with the same noise. Elsewhere its sums come out
    different in their last bits, and two releases with one noise show that difference bare.
    """
    begun, seed = saved.get("made_on"), _seed_in(saved)
    if begun is None or seed is None or not seed.private:
        return
    moved = sorted(name for name in begun.keys() | here.keys() if begun.get(name) != here.get(name))
    if moved:
        raise InputError(
            "checkpoint",
            ", ".join(f"{name} {begun.get(name)}" for name in moved),
            "what is here ("
            + ", ".join(f"{name} {here.get(name)}" for name in moved)
            + "): the private noise of a run that was cut short may be used again on the same bits "
            "only. Go on where it was begun, or delete the run's folder to begin another",
        )


def forget_seed(folder: Path) -> None:
    """Remove a private root seed from a finished run's checkpoint, kept to go on from.

    Whoever has the root can subtract the noise. A seed that the user gave is no secret and
    stays, so that going on gives the bits of a longer run.
    """
    state = load_checkpoint(folder)
    seed = None if state is None else _seed_in(state)
    if state is not None and seed is not None and seed.private:
        state["seed"] = None
        save_checkpoint(folder, state)
