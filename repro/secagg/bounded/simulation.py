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
from repro.secagg.bounded.member import Member
from repro.secagg.bounded.messages import MemberKey, size_of
from repro.secagg.bounded.server import BoundedServer
from repro.secagg.bounded.setting import PHASES, BoundedRound
from repro.secagg.errors import Refused
from repro.secagg.shamir import Entropy
from repro.secagg.simulation import Party

Result = TypeVar("Result")
Message = TypeVar("Message")  # an Offer or a Proof
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
    play.join(hospitals or {}, members or {})
    server = play.server
    keys = server.take_keys(play.members_say("keys", lambda member: member.key()))
    for one in play.present("offer", play.hospitals):
        hospital = play.hospitals[one]
        play.sent(one, partial(hospital.offer, keys, vector(one)), keys, server.take_offer)
    play.settle_complaints(keys)
    nonces = server.take_nonces(play.members_say("nonces", lambda member: member.nonce()))
    for one in play.present("proof", sorted(server.offers)):
        hospital = play.hospitals[one]
        play.sent(one, partial(hospital.prove, nonces), nonces, server.take_proof)
    proofs = list(server.proofs.values())
    given = (nonces, proofs)
    answers = play.members_say("answers", lambda member: member.answers(nonces, proofs), given)
    with play.costs.timed("server"):
        accepted = server.judge(answers)
    signatures = play.members_say("confirm", lambda member: member.confirm(accepted), accepted)
    with play.costs.timed("server"):
        good = server.quorum(accepted, signatures)
    digests = play.members_say("masks", lambda member: member.mask_digests(good), good)
    before = play.costs.seconds["member"]
    with play.costs.timed("server"):
        total = server.unmask(digests, play.mask_sum)
    play.costs.seconds["server"] -= play.costs.seconds["member"] - before  # asked meanwhile
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
        self.party, self.round, self._drop, self._entropy = party, round_, drop, entropy
        self.server = BoundedServer(round_)
        self.hospitals: dict[int, BoundedHospital] = {}
        self.members: dict[int, Member] = {}
        self.left: dict[int, str] = {}
        self.costs = BoundedCosts()

    def join(
        self, kinds: Mapping[int, type[BoundedHospital]], members: Mapping[int, type[Member]]
    ) -> None:
        """Everybody, those too that are lost at once: the next round is the next for all."""
        for one in self.round.roster:
            kind, identity = kinds.get(one, BoundedHospital), self.party.hospitals[one]
            try:
                hospital = kind(one, identity, self.round, entropy=self._entropy)
            except Refused as reason:
                self.left[one] = str(reason)
                continue
            self.hospitals[one] = hospital
            if one in self.round.committee:
                self.members[one] = hospital.member(members.get(one, Member))

    def present(self, phase: str, parties: Collection[int]) -> list[int]:
        so_far = PHASES[: PHASES.index(phase) + 1]
        gone = {one for each in so_far for one in self._drop.get(each, ())}
        return [one for one in parties if one not in gone]

    def members_say(
        self, phase: str, say: Callable[[Member], Result], given: Any = ()
    ) -> dict[int, Result]:
        """Member -> what it says; one that refuses, or has gone, says nothing."""
        said = {
            one: self._says("member", one, partial(say, self.members[one]), given)
            for one in self.present(phase, self.members)
        }
        return {one: each for one, each in said.items() if each is not None}

    def mask_sum(self, member: int, number: int) -> np.ndarray | None:
        return self._says("member", member, partial(self.members[member].mask_sum, number), number)

    def sent(
        self,
        one: int,
        say: Callable[[], tuple[Message, np.ndarray]],
        given: Any,
        take: Callable[[int, Message, np.ndarray], None],
    ) -> None:
        """The server takes what a hospital says, or leaves the hospital out."""
        said = self._says("hospital", one, say, given)
        if said is None:
            return
        with self.costs.timed("server"):
            try:
                take(one, *said)
            except Refused as reason:
                self.server.leave_out(one, str(reason))

    def settle_complaints(self, keys: Collection[MemberKey]) -> None:
        offers = list(self.server.offers.values())
        given = (keys, offers)
        said = self.members_say("complaints", lambda each: each.complaints(keys, offers), given)
        published = {}
        for one, complaints in self.server.accused(said).items():
            answer: Mapping[int, bytes] | None = None
            if one in self.present("complaints", self.hospitals):
                say = partial(self.hospitals[one].published, complaints)
                answer = self._says("hospital", one, say, complaints)
            published[one] = self.server.take_answer(one, complaints, answer or {})
        heard = {one: seeds for one, seeds in published.items() if one in self.server.offers}
        if heard:
            self.members_say("complaints", lambda member: member.learn(heard), heard)

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
