"""Frozen test vectors of version 2: whoever changes one of these changes the protocol.

Made once by this package with the counted entropy of ``parties``; digests are SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from repro.secagg import Encoding, Field, Party, run_round, shamir
from repro.secagg.masks import mask
from tests.secagg.parties import Stage, counted_entropy, field_vectors, make_round

FROZEN = json.loads(Path(__file__).with_name("vectors.json").read_text())


def digest(data) -> str:
    return hashlib.sha256(bytes(data)).hexdigest()


def field_sums(bits: int) -> str:
    field = Field(bits)
    left = (np.arange(1000, dtype=field.dtype) * field.dtype.type(2654435761)) % field.modulus
    right = left[::-1].copy()
    field.add_into(left, right)
    field.subtract_into(left, right[np.arange(1000) // 2])
    return digest(left.tobytes())


def shares() -> dict[str, str]:
    made = shamir.split(bytes(range(32)), 4, range(1, 6), counted_entropy("shamir"))
    return {str(place): share.hex() for place, share in made.items()}


def masks(bits: int) -> dict[str, object]:
    drawn = mask(Field(bits), bytes(range(32)), 100_000)
    return {"first": drawn[:4].tolist(), "digest": digest(drawn.tobytes())}


def encoded(bits: int) -> dict[str, object]:
    vector = np.linspace(-9, 9, 1001, dtype=np.float32)
    drawn = Encoding(Field(bits), 10).encode(vector, 956, 0xFEDCBA9876543210)
    return {"last": drawn[-4:].tolist(), "digest": digest(drawn.tobytes())}


def whole_round() -> dict[str, str]:
    entropy = counted_entropy("round")
    party = Party(range(4), entropy)
    stage = Stage(4, 3, party=party, entropy=entropy)
    total = stage.play()
    made = {
        f"{phase} {one}": digest(message)
        for phase, replies in stage.sent.items()
        for one, message in replies.items()
    }
    return {"context": stage.round.context.hex(), "sum": digest(total.tobytes()), **made}


def graph() -> dict[str, list[int]]:
    party = Party(range(9), counted_entropy("graph"))
    _, round_ = make_round(9, 3, 4, party=party)
    return {str(one): sorted(near) for one, near in round_.graph.items()}


MADE = {
    "field 31": lambda: field_sums(31),
    "field 61": lambda: field_sums(61),
    "shamir": shares,
    "mask 31": lambda: masks(31),
    "mask 61": lambda: masks(61),
    "encoding 31": lambda: encoded(31),
    "encoding 61": lambda: encoded(61),
    "graph": graph,
    "round": whole_round,
}


@pytest.mark.parametrize("name", MADE)
def test_frozen(name):
    assert MADE[name]() == FROZEN[name]


def test_same_entropy_same_bytes_and_other_entropy_same_sum():
    """The sum does not depend on any key: with secret entropy it is the same."""
    party, round_ = make_round(4, 3)
    vectors = field_vectors(round_)
    total = run_round(party, round_, vectors.__getitem__).total
    assert digest(total.tobytes()) == FROZEN["round"]["sum"]
