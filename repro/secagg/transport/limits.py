"""What the server grants a peer: time, bytes, and a place among its connections."""

from __future__ import annotations

import os
from dataclasses import dataclass

from repro.checks import check_above_zero, check_counts
from repro.errors import InputError
from repro.secagg.protocols import protocol_of
from repro.secagg.rounds import BaseRound
from repro.secagg.transport.wire import RATE

SPARE_DESCRIPTORS = 16  # left for files, logs and the selector
_FRAMES_AT_ONCE = 4
_BUFFER_BYTES = 8 << 20


@dataclass(frozen=True)
class Limits:
    """Seconds, bytes and counts, each against one way of holding a round up.

    phase: seconds a phase waits for silent hospitals; opening: the same for the first, in which
    hospitals find their way here (None: as the others). enough, stragglers: once so many hospitals
    are in (0: never mind), it lasts so many seconds more at most. After them a phase goes on only
    while a hospital is in the middle of a transfer, see ``overtime``. introduction: seconds from a
    peer's connection to its valid ADVERTISE, the TLS handshake included, what it takes at ``rate``
    in between not counted. grace, rate: a frame that has begun (or an
    answer that is being sent) may be ``grace`` seconds behind a steady ``rate`` of bytes a
    second, so one of n bytes is there after grace + n/rate seconds or never. turn: seconds a
    frame may take while others wait for its place in the buffer; None for a quarter of a phase.
    peers: connections at once, at most; the process's descriptors may allow fewer.
    """

    phase: float = 60.0
    opening: float | None = None
    enough: int = 0
    stragglers: float = 60.0
    introduction: float = 5.0
    grace: float = 5.0
    rate: float = RATE
    turn: float | None = None
    peers: int = 4096

    def __post_init__(self) -> None:
        given = [name for name in ("opening", "turn") if getattr(self, name) is not None]
        check_above_zero(self, "phase", "stragglers", "introduction", "grace", "rate", *given)
        check_counts(self, peers=1, enough=0)

    def seconds(self, phase: str) -> float:
        """How long the phase may take."""
        if phase == "advertise" and self.opening is not None:
            return self.opening
        return self.phase

    @property
    def longest_turn(self) -> float:
        return self.phase / 4 if self.turn is None else self.turn

    def overtime(self, frame: int) -> float:
        """How long a phase goes on at most for transfers of ``frame`` bytes that have begun."""
        return float(self.introduction + frame / self.rate)

    def longest_wait(self, round_: BaseRound, greeting: int) -> float:
        """The most seconds from one message of the server's to its next; greeting: bytes that a
        hospital is sent before it advertises."""
        protocol = protocol_of(round_)
        first = max(greeting, protocol.first_frame(round_))
        vector = protocol.frame_limit("masked", round_)
        # One of the phases passed over may be that of the vectors.
        return max(
            self.seconds("advertise") + self.overtime(first),
            protocol.waits * self.phase + self.overtime(vector),
        )

    def behind(self, received: int, seconds: float) -> bool:
        """Whether a transfer that began ``seconds`` ago is below the minimum rate."""
        return received < self.rate * (seconds - self.grace)

    def connections(self, roster: int) -> int:
        """How many to hold at once. Raises InputError if ``roster`` hospitals do not fit in."""
        free = descriptor_limit() - _descriptors_in_use() - SPARE_DESCRIPTORS
        allowed = min(self.peers, free)
        if allowed < roster:
            needed = f"room for {roster} connections: raise `ulimit -n` or the limit of peers"
            raise InputError("connections", max(allowed, 0), needed)
        return allowed


def buffer_bytes(frame: int) -> int:
    """Room for messages in the making when none is longer than ``frame``: the same for ten
    hospitals and for ten thousand."""
    return max(_BUFFER_BYTES, _FRAMES_AT_ONCE * frame)


def descriptor_limit() -> int:
    """How many descriptors this process may open."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def _descriptors_in_use() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 64  # a guess where the system does not tell; accept() copes if it is wrong
