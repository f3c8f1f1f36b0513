"""A run's state after a round, on disk whole or not at all."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from repro.errors import InputError
from repro.files import write_whole
from repro.randomness import RootSeed

NAME = "checkpoint.pt"
_HASH_BYTES = 32


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """``state``: tensors, numbers, strings, bytes and containers of them (no pickled code)."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    body = buffer.getvalue()
    # Readable by its owner alone: whoever has a private seed can subtract the noise.
    write_whole(folder / NAME, hashlib.sha256(body).digest() + body, mode=0o600)


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
            raise _lost(folder, "damaged")
        print(f"repro: {path} is damaged; the run starts from round 0", file=sys.stderr)
        return None
    result: dict[str, Any] | None = torch.load(io.BytesIO(body), weights_only=True)
    return result


@dataclass(frozen=True)
class Begun:
    """What a run goes on with. seed: None in a finished private run, after ``forget_seed``;
    threads: of the CPU, on which its sums' last bits depend; None: not known. data: a private
    run's fingerprint of its records; None: forgotten with the seed, or not private."""

    seed: RootSeed | None
    threads: int | None
    data: str | None = None


def begun(folder: Path, *, private: bool = False, finished: bool = False) -> Begun | None:
    """What the run in ``folder`` began with; None when there is nothing to go on from.

    private: see ``load_checkpoint``; then a checkpoint that a ``finished`` run lacks is damage too.
    """
    state = load_checkpoint(folder, private=private)
    if state is None:
        if private and finished:
            raise _lost(folder, "missing")
        return None
    machines = state.get("made_on", [])
    threads = machines[0].get("threads") if machines else None
    return Begun(_seed_in(state), threads, state.get("data"))


def _seed_in(state: Mapping[str, Any]) -> RootSeed | None:
    seed = state["seed"]
    return None if seed is None else RootSeed(seed["root"], seed["source"])


def check_same_data(found: Begun, fingerprint: str) -> None:
    """A private run goes on with the records it was begun with: its name does not tell.

    The round that was cut short is done again with the same noise; on other records the two
    releases would show their difference bare.
    """
    if found.data not in (None, fingerprint):
        raise InputError(
            "data",
            "other records",
            "those that this private run was begun with. Give them, or another --out, or delete "
            "the run's folder to begin another run, and count what this one released as spent too",
        )


def check_same_machines(saved: Mapping[str, Any], here: Sequence[Mapping[str, Any]]) -> None:
    """A private run goes on only where it was begun, by the same code.

    The round that was cut short is done again with the same noise. Elsewhere its sums come out
    different in their last bits, and two releases with one noise show that difference bare.
    saved: a checkpoint; here: of every rank, or one for all that are alike.
    """
    seed = _seed_in(saved)
    if seed is None or not seed.private:
        return
    begun_on = saved.get("made_on", [])
    if begun_on == list(here):
        return
    moved = {
        name
        for then, now in zip(begun_on, here, strict=False)
        for name in then.keys() | now.keys()
        if then.get(name) != now.get(name)
    }

    def shown(machines: Sequence[Mapping[str, Any]]) -> str:
        if len(begun_on) != len(here):
            return f"{len(machines)} unlike machines" if machines else "code of an earlier version"
        return "; ".join(", ".join(f"{n} {one.get(n)}" for n in sorted(moved)) for one in machines)

    raise InputError(
        "machine",
        shown(here),
        f"{shown(begun_on)}, as when this run was begun: what it released last may be released "
        "again bit for bit only, its private noise being the same. Go on there, or delete the "
        "run's folder to begin another run, and count what this one released as spent too",
    )


def _lost(folder: Path, how: str) -> InputError:
    return InputError(
        "checkpoint",
        f"{folder.name}/{NAME}, {how}",
        "it whole: it has the private seed and what was spent; delete the run's folder to begin "
        "another run, and count what this one released as spent too",
    )


def forget_seed(folder: Path) -> None:
    """Remove a private root seed from a finished run's checkpoint, kept to go on from, and what
    tells the records.

    Whoever has the root can subtract the noise. A seed that the user gave is no secret and
    stays, so that going on gives the bits of a longer run.
    """
    state = load_checkpoint(folder)
    seed = None if state is None else _seed_in(state)
    if state is not None and seed is not None and seed.private:
        state["seed"] = state["data"] = None
        save_checkpoint(folder, state)
