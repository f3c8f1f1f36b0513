"""One whole round in this process, with hospitals vanishing where one says, timed and counted."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from repro.errors import InputError
from repro.secagg.driver import Drop, RoundDriver, Traffic
from repro.secagg.hospital import Contribution
from repro.secagg.keys import Identity
from repro.secagg.rounds import SESSION_BYTES, Directory, Round
from repro.secagg.shamir import Entropy

__all__ = ["Completed", "Drop", "Party", "Traffic", "run_round"]


@dataclass(frozen=True)
class Completed:
    """A round that gave a sum: (dimension,) field elements over ``survivors``.

    refusals: a line for each message the server did not accept; excluded: hospital -> the lie
    it was left out for; left: hospital -> why it would not go on.
    """

    total: np.ndarray
    survivors: tuple[int, ...]
    refusals: tuple[str, ...]
    traffic: Traffic
    excluded: Mapping[int, str] = field(default_factory=dict)
    left: Mapping[int, str] = field(default_factory=dict)


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
    contribution: Callable[[int], Contribution | np.ndarray],
    *,
    drop: Drop | None = None,
    traffic: Traffic | None = None,
    entropy: Entropy = secrets.token_bytes,
) -> Completed:
    """Hospitals and server exchange all phases' messages.

    contribution: hospital -> its vector (length,) and weight, called when it is needed; making
    it is nobody's time. drop: phase -> hospitals lost before they send in that phase.
    traffic: filled as the round goes, so that it also tells of a round that failed.
    Raises RoundFailed when too few are left, InputError for a drop-out that cannot be.
    """
    driver = RoundDriver(
        round_, party.hospitals, party.server, drop=drop, traffic=traffic, entropy=entropy
    )
    driver.begin()
    for one in driver.awaiting:
        driver.add(one, contribution(one))
    driver.unmask()
    assert driver.total is not None, "one place is the first"
    return Completed(
        driver.total,
        driver.survivors,
        driver.refusals,
        driver.traffic,
        driver.excluded,
        driver.left,
    )
