"""One round played by a program: in one process, or in several that each have some hospitals.

The same for ``run_round`` and the federation over ranks. The messages are
the bytes that would go over a wire. Each place adds its hospitals' masked inputs up as they
come, so its memory is one running sum, one message and one vector, however many hospitals.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from repro.errors import InputError
from repro.secagg.encoding import Decoded
from repro.secagg.errors import Refused, RoundFailed
from repro.secagg.field import Field
from repro.secagg.hospital import Contribution, Hospital
from repro.secagg.keys import Identity
from repro.secagg.messages import Buffer
from repro.secagg.partial import MaskedSum
from repro.secagg.rounds import PHASES, Round
from repro.secagg.server import Server
from repro.secagg.shamir import Entropy

Messages = Mapping[int, Buffer]  # hospital -> what it sends, or what is sent to it
Drop = Mapping[str, Collection[int]]


@runtime_checkable
class Places(Protocol):
    """Where the parties are played, seen from one of the places. The first plays the server."""

    @property
    def first(self) -> bool: ...

    @property
    def size(self) -> int: ...

    def broadcast(self, value: Any) -> Any:
        """The first place's value, everywhere."""

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, everywhere."""

    def collect(self, value: Any) -> list[Any]:
        """Everybody's value, at the first place; elsewhere nothing."""

    def hand_out(self, values: list[Any]) -> Any:
        """Each place's own entry of the first place's list."""

    def add_up(self, vector: np.ndarray, field: Field) -> np.ndarray:
        """The sum over places of (n,) field elements, modulo p."""


class OnePlace:
    """Everybody in this process."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def collect(self, value: Any) -> list[Any]:
        return [value]

    def hand_out(self, values: list[Any]) -> Any:
        return values[0]

    def add_up(self, vector: np.ndarray, field: Field) -> np.ndarray:
        return vector


@dataclass
class Traffic:
    """Bytes and seconds by phase, of this place. Hospital figures are summed over hospitals;
    what answers to complaints cost is counted in ``verify``. ``of`` other phases: of a bounded
    round."""

    up_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    down_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    hospital_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    server_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    hospitals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))

    @classmethod
    def of(cls, phases: Collection[str]) -> Traffic:
        def nothing(kind: type[Any]) -> dict[str, Any]:
            return dict.fromkeys(phases, kind())

        return cls(nothing(int), nothing(int), nothing(float), nothing(float), nothing(int))

    def sent(self, phase: str, length: int) -> None:
        self.up_bytes[counted(phase)] += length
        self.hospitals[counted(phase)] += phase != "open"

    @contextmanager
    def timed(self, seconds: dict[str, float], phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds[counted(phase)] += time.perf_counter() - started


class RoundDriver:
    """One round at one place: ``begin``, ``add`` for each hospital of the place, ``unmask``.

    identities: the place's own hospitals; server: the server's identity, used at the first
    place. owners: hospital -> number of its place. drop: phase -> hospitals lost before they
    send in it. Afterwards ``survivors``, ``excluded`` and ``refusals`` (of the server, known
    everywhere), ``left`` (hospital -> why it refused to go on, of this place), ``total`` (the
    field sum, at the first place).
    Each method raises RoundFailed, everywhere alike, when too few are left.
    """

    def __init__(
        self,
        round_: Round,
        identities: Mapping[int, Identity],
        server: Identity,
        *,
        places: Places | None = None,
        owners: Mapping[int, int] | None = None,
        drop: Drop | None = None,
        traffic: Traffic | None = None,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        self.round = round_
        self.traffic = Traffic() if traffic is None else traffic
        self.left: dict[int, str] = {}
        self.survivors: tuple[int, ...] = ()
        self.excluded: dict[int, str] = {}
        self.refusals: tuple[str, ...] = ()
        self.total: np.ndarray | None = None
        self._places = OnePlace() if places is None else places
        self._owners = dict.fromkeys(round_.roster, 0) if owners is None else owners
        self._lost = gone_by_phase(round_, drop or {})
        self._identities, self._entropy = identities, entropy
        self._hospitals: dict[int, Hospital] = {}
        self._server = Server(server, round_) if self._places.first else None
        self._phase = PHASES[0]
        self._inbox: Messages = {}
        self._masked: MaskedSum | None = None

    def begin(self) -> None:
        """All phases before the masked inputs."""
        replies = {}
        for one, identity in self._identities.items():
            with self.traffic.timed(self.traffic.hospital_seconds, "advertise"):
                # Also one that is lost at once has joined: its next round is the next number.
                self._hospitals[one] = Hospital(one, identity, self.round, entropy=self._entropy)
                if one not in self._lost["advertise"]:
                    replies[one] = self._hospitals[one].advertise_keys()
                    self.traffic.sent("advertise", len(replies[one]))
        self._exchange(replies)
        while self._phase != "masked":
            self._exchange(self._answers())
        awaited = self._places.broadcast(self._server and self._server.awaited)
        self._masked = MaskedSum(self.round, awaited, self._identities)

    @property
    def awaiting(self) -> list[int]:
        """The hospitals of this place whose vectors ``add`` would take."""
        return [one for one in self._inbox if one not in self._lost["masked"]]

    def add(self, hospital: int, contribution: Contribution | np.ndarray) -> None:
        """Encode, mask and add one hospital's vector; nothing of it is kept.

        Does nothing for a hospital that has been lost. Raises InputError for a bad vector.
        """
        message = self._inbox.get(hospital)
        if message is None or hospital in self._lost["masked"]:
            return
        self.traffic.down_bytes["masked"] += len(message)
        with self.traffic.timed(self.traffic.hospital_seconds, "masked"):
            try:
                reply = self._hospitals[hospital].masked_input(message, contribution)
            except Refused as reason:
                self.left[hospital] = str(reason)
                return
        self.traffic.sent("masked", len(reply))
        assert self._masked is not None, "begin comes first"
        with self.traffic.timed(self.traffic.server_seconds, "masked"):
            self._masked.add(reply)

    def unmask(self) -> None:
        """The phases after the masked inputs."""
        total, signatures = self._sum_up()
        self._serve(lambda server: server.masked_sum(signatures, total))
        while self._phase != "done":
            self._exchange(self._answers())
        self.survivors = tuple(sorted(signatures))

    def decode(self) -> Decoded:
        """What the sum says, everywhere. Raises ImpossibleSum if no honest hospitals have it."""
        decoded: Any = None
        if self._server is not None:
            assert self.total is not None, "unmask comes first"
            try:
                with self.traffic.timed(self.traffic.server_seconds, "unmask"):
                    decoded = self.round.encoding.decode(self.total, len(self.survivors))
            except (RoundFailed, InputError) as failure:
                decoded = failure
        decoded = _raised(self._places.broadcast(decoded))
        assert isinstance(decoded, Decoded)
        return decoded

    def traffic_everywhere(self) -> tuple[dict[str, int], dict[str, int]]:
        """(up, down): bytes by phase, of all hospitals at all places."""
        parts = self._places.gather((self.traffic.up_bytes, self.traffic.down_bytes))
        up, down = ({phase: sum(part[way][phase] for part in parts) for phase in PHASES}
                    for way in (0, 1))  # fmt: skip
        return up, down

    def _answers(self) -> dict[int, Buffer]:
        """What this place's hospitals answer; one that refuses to is lost."""
        answers: dict[int, Buffer] = {}
        phase = self._phase
        for one, message in self._inbox.items():
            if one in self._lost[counted(phase)]:
                continue
            self.traffic.down_bytes[counted(phase)] += len(message)
            with self.traffic.timed(self.traffic.hospital_seconds, phase):
                try:
                    answers[one] = self._hospitals[one].answer(message, _nothing)
                except Refused as reason:
                    self.left[one] = str(reason)
                    continue
            self.traffic.sent(phase, len(answers[one]))
        return answers

    def _exchange(self, sent: Messages) -> None:
        """This place's hospitals' messages to the server, and what comes back."""
        parts = self._places.collect(sent)
        received = [message for part in parts for message in part.values()]
        self._serve(lambda server: server.receive(received))

    def _serve(self, step: Callable[[Server], Messages]) -> None:
        """The server takes a step at the first place; each gets its own hospitals' messages."""
        parts: list[Any] = []
        if self._server is not None:
            parts = [{} for _ in range(self._places.size)]
            phase = self._server.phase
            try:
                with self.traffic.timed(self.traffic.server_seconds, phase):
                    for one, message in step(self._server).items():
                        parts[self._owners[one]][one] = message
                said = (self._server.phase, self._server.excluded, tuple(self._server.refusals))
                parts = [(*said, part) for part in parts]
                self.total = self._server.total
            except RoundFailed as failure:
                parts = [failure] * self._places.size
        handed = _raised(self._places.hand_out(parts))
        self._phase, self.excluded, self.refusals, self._inbox = handed

    def _sum_up(self) -> tuple[np.ndarray, dict[int, bytes]]:
        """The masked inputs' sum in the field, and their senders' signatures."""
        assert self._masked is not None, "begin comes first"
        total = self._places.add_up(self._masked.total, self.round.field)
        parts = self._places.gather(self._masked.signatures)
        self._masked = None
        return total, {one: signed for part in parts for one, signed in part.items()}


def gone_by_phase(round_: Round, drop: Drop) -> dict[str, set[int]]:
    """Phase -> everybody who has gone by then. Raises InputError for a drop-out that cannot be."""
    for phase, gone in drop.items():
        if phase not in PHASES:
            raise InputError("drop", phase, f"a phase: {', '.join(PHASES)}")
        strangers = sorted(set(gone) - set(round_.roster))
        if strangers:
            raise InputError("drop", strangers, "ids of hospitals in the round")
    lost: dict[str, set[int]] = {}
    so_far: set[int] = set()
    for phase in PHASES:
        so_far |= set(drop.get(phase, ()))
        lost[phase] = set(so_far)
    return lost


def counted(phase: str) -> str:
    """The phase of ``PHASES`` under which bytes and time are counted."""
    return "verify" if phase == "open" else phase


def _nothing() -> Contribution:
    raise AssertionError("a masked input is asked for by add, not by a message")


def _raised(value: Any) -> Any:
    if isinstance(value, (RoundFailed, InputError)):
        raise value
    return value
