"""The two protocols of secure sums, as networks see them: which parties, how long their messages.

A network carries messages between one server and its hospitals and need not know what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from repro.secagg import bounded, messages
from repro.secagg.bounded import wire
from repro.secagg.bounded.setting import PHASES as BOUNDED_PHASES
from repro.secagg.hospital import Contribution, Hospital
from repro.secagg.keys import Identity
from repro.secagg.packing import Buffer
from repro.secagg.rounds import PHASES, BaseRound
from repro.secagg.server import Server


@runtime_checkable
class ServerParty(Protocol):
    """The server in one round; ``Server`` says what each of these is."""

    phase: str
    awaited: set[int]
    refusals: list[str]
    survivors: frozenset[int]
    total: np.ndarray | None

    @property
    def round(self) -> BaseRound: ...

    @property
    def excluded(self) -> Mapping[int, str]: ...

    def receive(self, received: Iterable[Buffer], /) -> Mapping[int, Buffer]: ...

    def dismisses(self, hospital: int, /) -> bool:
        """Whether nothing more will be asked in this round of one that gets no message now."""


@runtime_checkable
class HospitalParty(Protocol):
    """A hospital in one round; ``Hospital`` says what each of these is."""

    id: int
    phase: str

    @property
    def round(self) -> BaseRound: ...

    def advertise_keys(self) -> bytearray: ...

    def answer(
        self, message: Buffer, contribution: Callable[[], Contribution | np.ndarray], /
    ) -> bytearray: ...


@dataclass(frozen=True)
class SumProtocol:
    """phases: those that are counted, in order: the first has hospitals come, in "masked" they
    send their vectors. frame_limit: (phase, round) -> the most bytes an honest hospital sends;
    longest: the same for both parties, in any phase. phase_of: a server's message -> the phase in
    which it is answered. waits: phases that may pass between two messages to one hospital."""

    phases: Collection[str]
    server: Callable[[Identity, Any], ServerParty]
    hospital: Callable[[int, Identity, Any], HospitalParty]
    frame_limit: Callable[[str, Any], int]
    longest: Callable[[Any], int]
    phase_of: Callable[[Buffer], str]
    waits: int = 1

    def first_frame(self, round_: BaseRound) -> int:
        """The most bytes of a hospital's first message."""
        return self.frame_limit("advertise", round_)


USUAL = SumProtocol(
    phases=PHASES,
    server=Server,
    hospital=Hospital,
    frame_limit=messages.frame_limit,
    longest=messages.max_message_bytes,
    phase_of=messages.phase_of,
)
BOUNDED = SumProtocol(
    phases=BOUNDED_PHASES,
    server=bounded.ServerSide,
    hospital=bounded.HospitalSide,
    frame_limit=wire.frame_limit,
    longest=wire.longest,
    phase_of=wire.phase_of,
    # Who is not on the committee hears nothing of complaints and nonces.
    waits=4,
)


def protocol_of(round_: BaseRound) -> SumProtocol:
    """By which protocol the round is held."""
    return BOUNDED if isinstance(round_, bounded.BoundedRound) else USUAL
