"""The server's register of complaints: who sealed badly, who complained without cause."""

from __future__ import annotations

from collections.abc import Mapping

from repro.secagg import sealing
from repro.secagg.errors import Refused
from repro.secagg.messages import SealedShare
from repro.secagg.rounds import Round


class Complaints:
    """One round's complaints and what comes of them.

    accused: owner -> {holder: its signed complaint}, to be answered by the owner. excluded:
    hospital -> what it did, in words; each is proved by messages that the hospital signed.
    """

    def __init__(self, round_: Round) -> None:
        self.round = round_
        self.accused: dict[int, dict[int, bytes]] = {}
        self.excluded: dict[int, str] = {}
        self._answered: set[int] = set()

    def file(self, owner: int, holder: int, entry: SealedShare, signature: bytes) -> None:
        """Take in a holder's complaint. Refused if it is not signed by the holder."""
        if signature == sealing.NO_COMPLAINT:
            if sealing.signed_by(self.round, owner, entry):
                self._exclude(holder, f"called a good signature of hospital {owner} bad")
            else:
                self._exclude(owner, f"did not sign what it sealed for hospital {holder}")
            return
        if not sealing.complained(self.round, owner, holder, signature):
            raise Refused(f"a complaint of {owner} that hospital {holder} has not signed")
        self.accused.setdefault(owner, {})[holder] = signature

    def judge(
        self,
        owner: int,
        secrets: Mapping[int, bytes],
        entries: Mapping[int, SealedShare],
        seal_keys: Mapping[int, bytes],
    ) -> None:
        """The owner's answer. secrets: holder -> ephemeral secret; entries and seal_keys: of the
        holders that complained."""
        if set(secrets) != set(self.accused[owner]):
            raise Refused("secrets that are not those asked for")
        self._answered.add(owner)
        for holder, secret in secrets.items():
            entry, seal_key = entries[holder], seal_keys[holder]
            if sealing.sealed_rightly(self.round, owner, entry, secret, seal_key):
                self._exclude(holder, f"complained of good shares of hospital {owner}")
            else:
                self._exclude(owner, f"sealed bad shares for hospital {holder}")

    def convict_the_silent(self) -> None:
        for owner in sorted(set(self.accused) - self._answered):
            self._exclude(owner, "did not answer to a complaint about its shares")

    def _exclude(self, hospital: int, reason: str) -> None:
        self.excluded.setdefault(hospital, reason)
