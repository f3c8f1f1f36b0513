"""Small bounded rounds for the tests: settings, vectors, parties that have made their offers."""

from __future__ import annotations

import numpy as np

from repro.secagg import Party
from repro.secagg.bounded import (
    BoundedHospital,
    BoundedRound,
    Member,
    NormBound,
    run_bounded_round,
)
from repro.secagg.bounded.messages import (
    Complaint,
)

LENGTH = 40
BOUND = NormBound(1e4, 16, rows=200, error=2.0**-30)


def make(hospitals: int = 7, faults: int = 1, **more) -> tuple[Party, BoundedRound]:
    party = Party(range(hospitals))
    settings = {
        "directory": party.directory,
        "session": party.session,
        "number": 1,
        "bound": BOUND,
        "length": LENGTH,
        "model": bytes(32),
        "training": bytes(32),
        "faults": faults,
    }
    return party, BoundedRound(**{**settings, **more})


def vector(hospital: int) -> np.ndarray:
    normal = np.random.default_rng(hospital).standard_normal(LENGTH)
    return np.trunc(normal / np.linalg.norm(normal) * 1e4).astype(np.int64)


def outsider(round_: BoundedRound) -> int:
    return next(one for one in round_.roster if one not in round_.committee)


def complaints_of(member: Member, offers) -> list[Complaint]:
    return [
        Complaint(
            offer.hospital, mask, member.id, member._key.public, offer.digest(member.round)
        ).signed(member.round, member._identity)
        for offer in offers
        for mask in member.round.held_by(member.id)
    ]


class Begun:
    """Members and hospitals after their offers: what a lying server has to work with."""

    def __init__(self, party: Party, round_: BoundedRound) -> None:
        self.party, self.round = party, round_
        self.hospitals = {
            one: BoundedHospital(one, party.hospitals[one], round_) for one in round_.roster
        }
        self.members = [self.hospitals[one].member() for one in round_.committee]
        self.keys = [member.key() for member in self.members]
        self.offers = [
            hospital.offer(self.keys, vector(one))[0] for one, hospital in self.hospitals.items()
        ]

    def asked(self) -> None:
        """The members have seen all offers and given out their nonces."""
        for member in self.members:
            assert member.complaints(self.keys, self.offers) == []
        self.nonces = {member.id: member.nonce() for member in self.members}


def play(party, round_, **more):
    done = run_bounded_round(party, round_, vector, **more)
    assert (done.total == sum(vector(one) for one in done.accepted)).all()
    return done
