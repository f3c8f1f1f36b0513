"""One bounded round in this process, with liars and drop-outs where one says, timed and counted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from repro.errors import InputError
from repro.secagg.bounded.hospital import BoundedHospital
from repro.secagg.bounded.hospital_side import HospitalSide
from repro.secagg.bounded.member import Member
from repro.secagg.bounded.server_side import ServerSide
from repro.secagg.bounded.setting import OF_HOSPITALS, PHASES, BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.packing import Buffer
from repro.secagg.shamir import Entropy
from repro.secagg.simulation import Party

ROLES = ("hospital", "member", "server")


@dataclass
class BoundedCosts:
    """Seconds and bytes by role, summed over its parties. A member is a hospital besides."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 0.0))
    up_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))
    down_bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 0))

    @contextmanager
    def timed(self, role: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[role] += time.perf_counter() - started


@dataclass(frozen=True)
class BoundedSum:
    """total: (length,) int64, the sum over ``accepted``. excluded: hospital -> why it is not in
    it. lying: members that said what t + 1 others contradict. left: party -> why it would not
    go on."""

    total: np.ndarray
    accepted: tuple[int, ...]
    excluded: Mapping[int, str]
    lying: frozenset[int]
    left: Mapping[int, str]
    costs: BoundedCosts


def run_bounded_round(
    party: Party,
    round_: BoundedRound,
    vector: Callable[[int], np.ndarray],
    *,
    hospitals: Mapping[int, type[BoundedHospital]] | None = None,
    members: Mapping[int, type[Member]] | None = None,
    drop: Mapping[str, Collection[int]] | None = None,
    entropy: Entropy = secrets.token_bytes,
) -> BoundedSum:
    """Hospitals, members and server exchange all phases' messages, as bytes.

    vector: hospital -> (length,) int64; making it is nobody's time. hospitals, members: the classes
    that play liars. drop: phase -> hospitals gone from then on, members among them. Raises
    RoundFailed when too few members are left or agree, or too few hospitals pass.
    """
    if set(drop or {}) - set(PHASES):
        raise InputError("drop", sorted(drop or {}), f"phases: {', '.join(PHASES)}")
    costs, left = BoundedCosts(), dict[int, str]()
    server, sides = ServerSide(party.server, round_), dict[int, HospitalSide]()
    for one in round_.roster:  # those too that are lost at once: the next round is everybody's next
        liar = (hospitals or {}).get(one, BoundedHospital), (members or {}).get(one, Member)
        try:
            sides[one] = HospitalSide(
                one, party.hospitals[one], round_, entropy=entropy, kind=liar[0], member=liar[1]
            )
        except Refused as reason:
            left[one] = str(reason)
    inbox: dict[int, Buffer | None] = dict.fromkeys(sides)
    while server.phase != "done":
        phase = server.phase
        role = "hospital" if phase in OF_HOSPITALS else "member"
        so_far = PHASES[: PHASES.index(phase) + 1]
        gone = {one for each in so_far for one in (drop or {}).get(each, ())}
        sent: list[Buffer] = []
        for one, message in inbox.items():
            if one in gone:
                continue
            given = vector(one) if phase == "masked" else None
            costs.down_bytes[role] += len(message or b"")
            try:
                with costs.timed(role):
                    sent.append(_answer(sides[one], message, given))
            except Refused as reason:
                left[one] = str(reason)
                continue
            costs.up_bytes[role] += len(sent[-1])
        with costs.timed("server"):
            inbox = dict(server.receive(sent))
    assert server.total is not None, "done is with a sum"
    accepted = tuple(sorted(server.survivors))
    return BoundedSum(server.total, accepted, server.excluded, server.lying, left, costs)


def _answer(side: HospitalSide, message: Buffer | None, vector: np.ndarray | None) -> bytearray:
    if message is None:
        return side.advertise_keys()

    def give() -> np.ndarray:
        assert vector is not None, "asked for when it is due"
        return vector

    return side.answer(message, give)
