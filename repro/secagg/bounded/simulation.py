"""One bounded round in this process, with liars and drop-outs where one says, timed and counted."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from repro.errors import InputError
from repro.secagg.bounded.hospital import BoundedHospital
from repro.secagg.bounded.member import Member, challenge_from
from repro.secagg.bounded.messages import size_of
from repro.secagg.bounded.server import BoundedServer
from repro.secagg.bounded.setting import PHASES, BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.shamir import Entropy
from repro.secagg.simulation import Party

Result = TypeVar("Result")
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
    """Hospitals, members and server exchange all phases' messages.

    vector: hospital -> (length,) int64. hospitals, members: the classes that play liars. drop:
    phase -> hospitals gone from then on, members among them. Raises RoundFailed when too few
    members are left or agree, or too few hospitals pass.
    """
    play = _Play(party, round_, drop or {}, entropy)
    member_of = {one: (members or {}).get(one, Member) for one in round_.committee}
    for one in round_.committee:
        play.members[one] = member_of[one](one, party.hospitals[one], round_, entropy=entropy)
    keys = list(play.members_say("keys", lambda member: member.key()).values())
    play.server.take_keys(keys)
    for one in play.present("offer", round_.roster):
        player = (hospitals or {}).get(one, BoundedHospital)
        with play.costs.timed("hospital"):
            hospital = player(one, party.hospitals[one], round_, vector(one), entropy=entropy)
        play.hospitals[one] = hospital
        said = play.hospital_says(one, partial(hospital.offer, keys), keys)
        if said is not None:
            play.taken(one, partial(play.server.take_offer, *said))
    play.settle_complaints()
    challenge = challenge_from(entropy)
    for one in play.present("proof", sorted(play.server.offers)):
        hospital = play.hospitals[one]
        proof = play.hospital_says(one, partial(hospital.prove, challenge), challenge)
        if proof is not None:
            play.taken(one, partial(play.server.take_proof, *proof, challenge))
    proofs = list(play.server.proofs.values())
    answers = play.members_say("answers", lambda m: m.answers(challenge, proofs), proofs)
    with play.costs.timed("server"):
        accepted = play.server.judge(challenge, answers)
    signatures = play.members_say("confirm", lambda m: m.confirm(accepted), accepted)
    with play.costs.timed("server"):
        good = play.server.quorum(accepted, signatures)
    digests = play.members_say("masks", lambda m: m.mask_digests(good), good)
    with play.costs.timed("server"):
        sources = play.server.sources(digests)
    sums = {}
    for number, (one, _) in sources.items():
        given = play.member_says(one, partial(Member.mask_sum, number=number), number)
        if given is not None:
            sums[number] = given
    with play.costs.timed("server"):
        total = play.server.unmask(sums, sources)
    server = play.server
    lying = frozenset(server.lying)
    return BoundedSum(total, accepted, server.excluded, lying, play.left, play.costs)


class _Play:
    """The parties, who has gone, and what everything costs."""

    def __init__(
        self,
        party: Party,
        round_: BoundedRound,
        drop: Mapping[str, Collection[int]],
        entropy: Entropy,
    ) -> None:
        if set(drop) - set(PHASES):
            raise InputError("drop", sorted(drop), f"phases: {', '.join(PHASES)}")
        self.round, self._drop = round_, drop
        self.server = BoundedServer(round_)
        self.hospitals: dict[int, BoundedHospital] = {}
        self.members: dict[int, Member] = {}
        self.left: dict[int, str] = {}
        self.costs = BoundedCosts()

    def present(self, phase: str, parties: Collection[int]) -> list[int]:
        so_far = PHASES[: PHASES.index(phase) + 1]
        gone = {one for each in so_far for one in self._drop.get(each, ())}
        return [one for one in parties if one not in gone]

    def hospital_says(self, one: int, say: Callable[[], Result], given: Any) -> Result | None:
        return self._says("hospital", one, say, given)

    def member_says(self, one: int, say: Callable[[Member], Result], given: Any) -> Result | None:
        return self._says("member", one, lambda: say(self.members[one]), given)

    def members_say(
        self, phase: str, say: Callable[[Member], Result], given: Any = ()
    ) -> dict[int, Result]:
        """Member -> what it says; one that refuses, or has gone, says nothing."""
        said = {one: self.member_says(one, say, given) for one in self.present(phase, self.members)}
        return {one: each for one, each in said.items() if each is not None}

    def _says(self, role: str, one: int, say: Callable[[], Result], given: Any) -> Result | None:
        self.costs.down_bytes[role] += size_of(given)
        with self.costs.timed(role):
            try:
                said = say()
            except Refused as reason:
                self.left[one] = str(reason)
                return None
        self.costs.up_bytes[role] += size_of(said)
        return said

    def taken(self, one: int, take: Callable[[], None]) -> None:
        """The server takes a hospital's message, or leaves the hospital out."""
        with self.costs.timed("server"):
            try:
                take()
            except Refused as reason:
                self.server.leave_out(one, str(reason))

    def settle_complaints(self) -> None:
        offers = list(self.server.offers.values())
        said = self.members_say("complaints", lambda member: member.complaints(offers), offers)
        accused = self.server.accused([one for each in said.values() for one in each])
        published = {}
        for one, complaints in accused.items():
            answer = None
            if one in self.present("complaints", self.hospitals):
                hospital = self.hospitals[one]
                say = partial(hospital.published, complaints)
                answer = self.hospital_says(one, say, complaints)
            published[one] = self.server.take_answer(one, complaints, answer or {})
        self.members_say("complaints", lambda member: member.learn(published), published)
