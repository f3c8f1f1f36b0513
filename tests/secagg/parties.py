"""Small rounds for the tests: identities, settings, random field vectors, the expected sum."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from repro.random import RootSeed
from repro.secagg import Field, Hospital, Party, Round, Server

FIELD = Field(31)


def counted_entropy(name: str):
    """A deterministic n -> n bytes, for frozen vectors and repeatable rounds. Never for use."""
    seed, calls = RootSeed.from_user(5), iter(range(10**9))
    return lambda size: seed.derive_bytes(name, next(calls), size=size)


def make_round(
    hospitals: int, threshold: int, neighbours: int | None = None, dimension: int = 6, **more
) -> tuple[Party, Round]:
    """A party and a round of it; complete graph unless ``neighbours`` is given."""
    party = more.pop("party", None) or Party(range(hospitals))
    settings = {
        "directory": party.directory,
        "session": party.session,
        "number": 1,
        "threshold": threshold,
        "neighbours": hospitals - 1 if neighbours is None else neighbours,
        "dimension": dimension,
        "field": FIELD,
    }
    return party, Round(**{**settings, **more})


def field_vectors(round_: Round, seed: int = 0) -> dict[int, np.ndarray]:
    random = np.random.default_rng(seed)
    shape, top = (round_.dimension,), round_.field.modulus
    return {one: random.integers(0, top, shape).astype(round_.field.dtype) for one in round_.roster}


def field_sum(round_: Round, vectors: dict[int, np.ndarray], members: Iterable[int]) -> np.ndarray:
    """The sum in Python integers: an oracle that shares nothing with the package."""
    columns = zip(*(vectors[one].tolist() for one in members), strict=True)
    return np.array([sum(column) % round_.field.modulus for column in columns])


def actors(party: Party, round_: Round, **more) -> tuple[Server, dict[int, Hospital]]:
    hospitals = {
        one: Hospital(one, identity, round_, **more) for one, identity in party.hospitals.items()
    }
    return Server(party.server, round_), hospitals
