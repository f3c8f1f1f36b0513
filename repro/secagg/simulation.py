"""One whole round in memory, with hospitals vanishing where one says, timed and counted.

The messages are the bytes that would go over a wire. Masked inputs are made one at a time, so
memory is what the real server's would be, plus one hospital.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from repro.errors import InputError
from repro.secagg.errors import Refused
from repro.secagg.hospital import Hospital
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer
from repro.secagg.rounds import PHASES, SESSION_BYTES, Directory, Round
from repro.secagg.server import Answers, Server
from repro.secagg.shamir import Entropy

Drop = Mapping[str, Collection[int]]


@dataclass
class Traffic:
    """Bytes and seconds by phase. Hospital figures are summed over the hospitals in it."""

    up_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    down_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    hospital_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    server_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    hospitals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))


@dataclass(frozen=True)
class Completed:
    """A round that gave a sum: (dimension,) field elements over ``survivors``."""

    total: np.ndarray
    survivors: tuple[int, ...]
    refusals: tuple[str, ...]
    traffic: Traffic


class Party:
    """Identities of a server and its hospitals, and the rounds they hold together."""

    def __init__(self, hospitals: Collection[int], entropy: Entropy = secrets.token_bytes) -> None:
        if len(set(hospitals)) != len(hospitals):
            raise InputError("hospitals", sorted(hospitals), "distinct ids")
        self.server = Identity(entropy)
        self.hospitals = {one: Identity(entropy) for one in sorted(hospitals)}
        self.session = entropy(SESSION_BYTES)
        self.directory = Directory(
            self.server.public, {one: who.public for one, who in self.hospitals.items()}
        )


def run_round(
    party: Party,
    round_: Round,
    vector: Callable[[int], np.ndarray],
    *,
    drop: Drop | None = None,
    traffic: Traffic | None = None,
    entropy: Entropy = secrets.token_bytes,
) -> Completed:
    """Hospitals and server exchange the five phases' messages.

    vector: hospital -> its (dimension,) field elements, called when it is needed.
    drop: phase -> hospitals lost before they send in that phase.
    traffic: filled as the round goes, so that it also tells of a round that failed.
    Raises RoundFailed when too few are left, InputError for a drop-out that cannot be.
    """
    counts = Traffic() if traffic is None else traffic
    return _Play(party, round_, vector, _lost(round_, drop or {}), counts, entropy).run()


class _Play:
    """The parties of one round, and the clock."""

    def __init__(
        self,
        party: Party,
        round_: Round,
        vector: Callable[[int], np.ndarray],
        lost: Mapping[str, set[int]],
        traffic: Traffic,
        entropy: Entropy,
    ) -> None:
        self.party, self.round, self.vector = party, round_, vector
        self.lost, self.traffic, self.entropy = lost, traffic, entropy
        self.server = Server(party.server, round_)
        self.hospitals: dict[int, Hospital] = {}
        self.speaking, self.outside = _Stopwatch(), _Stopwatch()

    def run(self) -> Completed:
        server = self.server
        answers: Answers = {one: bytearray() for one in self.round.roster}
        for phase, method in (
            ("advertise", server.advertise_keys),
            ("share", server.share_keys),
            ("masked", server.masked_input),
            ("consistency", server.consistency_check),
        ):
            with self._server_time(phase):
                answers = method(self._replies(phase, answers))
        with self._server_time("unmask"):
            total = server.unmask(self._replies("unmask", answers))
        survivors, refusals = tuple(sorted(server.survivors)), tuple(server.refusals)
        return Completed(total, survivors, refusals, self.traffic)

    def _replies(self, phase: str, answers: Mapping[int, Buffer]) -> Iterator[Buffer]:
        """What the hospitals still there answer, made one at a time as the server takes them."""
        counts = self.traffic
        for one, message in answers.items():
            if one in self.lost[phase]:
                continue
            counts.down_bytes[phase] += len(message)
            waited, spoken = self.outside.seconds, self.speaking.seconds
            try:
                with self.speaking:
                    reply = self._reply(phase, one, message)
            except Refused:
                continue
            spent = self.speaking.seconds - spoken - (self.outside.seconds - waited)
            counts.hospital_seconds[phase] += spent
            counts.hospitals[phase] += 1
            counts.up_bytes[phase] += len(reply)
            yield reply

    def _reply(self, phase: str, one: int, message: Buffer) -> bytearray:
        if phase == "advertise":
            identity = self.party.hospitals[one]
            self.hospitals[one] = Hospital(one, identity, self.round, entropy=self.entropy)
            return self.hospitals[one].advertise_keys()
        hospital = self.hospitals[one]
        if phase == "share":
            return hospital.share_keys(message)
        if phase == "masked":
            with self.outside:  # making the vector is the caller's time, not the protocol's
                vector = self.vector(one)
            return hospital.masked_input(message, vector)
        if phase == "consistency":
            return hospital.consistency_check(message)
        return hospital.unmask(message)

    @contextmanager
    def _server_time(self, phase: str) -> Iterator[None]:
        """Counts a block's time less what the hospitals, fed from inside it, have taken."""
        started, spoken = time.perf_counter(), self.speaking.seconds
        try:
            yield
        finally:
            hospitals = self.speaking.seconds - spoken
            self.traffic.server_seconds[phase] += time.perf_counter() - started - hospitals


def _lost(round_: Round, drop: Drop) -> dict[str, set[int]]:
    """Phase -> everybody who has gone by then."""
    for phase, gone in drop.items():
        if phase not in PHASES:
            raise InputError("drop", phase, f"a phase: {', '.join(PHASES)}")
        strangers = sorted(set(gone) - set(round_.roster))
        if strangers:
            raise InputError("drop", strangers, "ids of hospitals in the round")
    lost: dict[str, set[int]] = defaultdict(set)
    gone_so_far: set[int] = set()
    for phase in PHASES:
        gone_so_far |= set(drop.get(phase, ()))
        lost[phase] = set(gone_so_far)
    return lost


class _Stopwatch:
    """Adds up the seconds spent inside ``with`` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started
