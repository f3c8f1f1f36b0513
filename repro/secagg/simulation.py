"""One whole round in memory, with hospitals vanishing where one says, timed and counted.

The messages are the bytes that would go over a wire. Masked inputs are made one at a time, so
memory is what the real server's would be, plus one hospital.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
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
Step = Callable[[Hospital, Buffer], bytearray]


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
    lost = _lost(round_, drop or {})
    counts = Traffic() if traffic is None else traffic
    server = Server(party.server, round_)
    hospitals = {
        one: Hospital(one, party.hospitals[one], round_, entropy=entropy) for one in round_.roster
    }
    steps: dict[str, Step] = {
        "advertise": lambda hospital, _: hospital.advertise_keys(),
        "share": lambda hospital, message: hospital.share_keys(message),
        "masked": lambda hospital, message: hospital.masked_input(message, inputs(hospital.id)),
        "consistency": lambda hospital, message: hospital.consistency_check(message),
        "unmask": lambda hospital, message: hospital.unmask(message),
    }
    outside = _Stopwatch()

    def inputs(hospital: int) -> np.ndarray:
        with outside:  # making the vector is the caller's time, not the protocol's
            return vector(hospital)

    def speak(phase: str, answers: Mapping[int, Buffer]) -> Iterator[Buffer]:
        for one, message in answers.items():
            if one in lost[phase]:
                continue
            counts.down_bytes[phase] += len(message)
            started, waited = time.perf_counter(), outside.seconds
            try:
                reply = steps[phase](hospitals[one], message)
            except Refused:
                continue
            spent = time.perf_counter() - started
            speaking.seconds += spent
            counts.hospital_seconds[phase] += spent - (outside.seconds - waited)
            counts.hospitals[phase] += 1
            counts.up_bytes[phase] += len(reply)
            yield reply

    speaking = _Stopwatch()
    methods = {
        "advertise": server.advertise_keys,
        "share": server.share_keys,
        "masked": server.masked_input,
        "consistency": server.consistency_check,
    }
    answers: Answers = {one: bytearray() for one in round_.roster}
    for phase, method in methods.items():
        with _server_time(counts, phase, speaking):
            answers = method(speak(phase, answers))
    with _server_time(counts, "unmask", speaking):
        total = server.unmask(speak("unmask", answers))
    return Completed(total, tuple(sorted(server.survivors)), tuple(server.refusals), counts)


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


class _server_time:
    """The time of a block less what the hospitals, fed from inside it, have taken."""

    def __init__(self, counts: Traffic, phase: str, speaking: _Stopwatch) -> None:
        self._counts, self._phase, self._speaking = counts, phase, speaking

    def __enter__(self) -> None:
        self._started, self._spoken = time.perf_counter(), self._speaking.seconds

    def __exit__(self, *_: object) -> None:
        whole = time.perf_counter() - self._started
        spent = whole - (self._speaking.seconds - self._spoken)
        self._counts.server_seconds[self._phase] += spent
