"""Small rounds for the tests: identities, settings, random field vectors, the expected sum."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Mapping

import numpy as np

from repro.randomness import RootSeed
from repro.secagg import (
    Completed,
    Contribution,
    Decoded,
    Encoding,
    Field,
    Hospital,
    IntegerEncoding,
    Party,
    Refused,
    Round,
    Server,
    messages,
    run_round,
)
from repro.secagg.messages import Kind
from repro.secagg.rounds import SERVER

FIELD = Field(31)
SEED = RootSeed.from_user(1)


def counted_entropy(name: str):
    """A deterministic n -> n bytes, for frozen vectors and repeatable rounds. Never for use."""
    seed, calls = RootSeed.from_user(5), iter(range(10**9))
    return lambda size: seed.derive_bytes(name, next(calls), size=size)


def make_round(
    hospitals: int, threshold: int, neighbours: int | None = None, dimension: int = 6, **more
) -> tuple[Party, Round]:
    """A party and a round of it; complete graph unless ``neighbours`` is given.

    Vectors are field elements as they are, unless an encoding is given.
    """
    party = more.pop("party", None) or Party(range(hospitals))
    field = more.pop("field", FIELD)
    settings = {
        "directory": party.directory,
        "session": party.session,
        "number": 1,
        "threshold": threshold,
        "neighbours": hospitals - 1 if neighbours is None else neighbours,
        "encoding": IntegerEncoding(field, hospitals),
        "length": dimension,
        "model": bytes(range(32)),
        "training": bytes(range(32, 64)),
    }
    return party, Round(**{**settings, **more})


def weighted_mean(
    updates: Mapping[int, np.ndarray],
    weights: Mapping[int, int],
    *,
    seed: RootSeed = SEED,
    drop: Mapping[str, Iterable[int]] | None = None,
    **settings,
) -> tuple[Completed, Decoded]:
    """A round of real vectors, in the paper's 5 shares with threshold 4 unless ``settings`` say.

    Vectors are rounded with the keys that a federation of this seed has in this round.
    """
    usual = {
        "threshold": 4,
        "neighbours": 4,
        "number": 1,
        "encoding": Encoding(FIELD, len(weights), max_weight=2000),
        "dimension": len(next(iter(updates.values()))),
    }
    party, round_ = make_round(len(weights), **{**usual, **settings})

    def contribution(one: int) -> Contribution:
        key = seed.derive("secagg rounding", one, round_.number)
        return Contribution(updates[one], weights[one], key)

    completed = run_round(party, round_, contribution, drop=drop)
    return completed, round_.encoding.decode(completed.total, len(completed.survivors))


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


def up_to_masked(server: Server, hospitals: dict[int, Hospital]) -> dict[int, bytearray]:
    """The phases before the masked input, all honest: the SHARERS messages."""
    answers = server.advertise_keys(h.advertise_keys() for h in hospitals.values())
    answers = server.share_keys(hospitals[i].share_keys(m) for i, m in answers.items())
    return server.verify_shares(hospitals[i].verify_shares(m) for i, m in answers.items())


class Stage:
    """A round, of K = 4, t = 3 on the complete graph unless said, played step by step."""

    def __init__(self, hospitals: int = 4, threshold: int = 3, **more) -> None:
        entropy = more.pop("entropy", secrets.token_bytes)
        self.party, self.round = make_round(hospitals, threshold, **more)
        self.server, self.hospitals = actors(self.party, self.round, entropy=entropy)
        self.vectors = field_vectors(self.round)
        self.sent: dict[str, dict[int, bytearray]] = {}
        self.answers: dict[int, bytearray] = dict.fromkeys(self.round.roster, bytearray())

    def respond(self, phase: str, one: int, message: bytearray) -> bytearray:
        """What hospital ``one`` answers in this phase."""
        hospital = self.hospitals[one]
        if phase == "advertise":
            return hospital.advertise_keys()
        if phase == "masked":
            return hospital.masked_input(message, self.vectors[one])
        names = {
            "share": "share_keys",
            "verify": "verify_shares",
            "open": "open_shares",
            "consistency": "consistency_check",
            "unmask": "unmask",
        }
        return getattr(hospital, names[phase])(message)

    def play(
        self,
        until: str = "done",
        tamper=lambda phase, one, message: message,
        forge=lambda phase, one, reply: reply,
    ):
        """Run the phases before ``until``; ``tamper`` sees every message to a hospital and
        ``forge`` every one from it. Returns what the server answers to the last phase played
        (or the sum). Goes on where it was left."""
        server = self.server
        while server.phase not in ("done", until):
            phase = server.phase
            replies = self.sent[phase] = {}
            for one, message in self.answers.items():
                with contextlib.suppress(Refused):
                    reply = self.respond(phase, one, tamper(phase, one, message))
                    replies[one] = forge(phase, one, reply)
            self.answers = server.receive(replies.values())
        return server.total if server.phase == "done" else dict(self.answers)

    def as_server(self, kind: Kind, payload: bytes) -> bytearray:
        return messages.wrap(kind, SERVER, self.round, self.party.server, payload)

    def as_hospital(self, one: int, kind: Kind, payload: bytes) -> bytearray:
        return messages.wrap(kind, one, self.round, self.party.hospitals[one], payload)

    def expected(self, members) -> np.ndarray:
        return field_sum(self.round, self.vectors, members)
