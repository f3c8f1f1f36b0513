"""A hospital's own part in a federation's rounds, whatever brings the messages.

Everything that must survive the process lies in its state folder: the counter of rounds begun,
the last directory accepted, the log. Killed at any moment and started again, it takes part in
the next round; nothing is sent twice under one round's number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from repro.errors import InputError
from repro.secagg.deploy.announcement import Announcement
from repro.secagg.deploy.counter import FileCounter, open_counter
from repro.secagg.deploy.directory import FederationDirectory
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import Place
from repro.secagg.deploy.transcript import Transcript, open_transcript
from repro.secagg.errors import Refused
from repro.secagg.hospital import Contribution, Hospital
from repro.secagg.keys import SIGNATURE_BYTES
from repro.secagg.messages import HEADER_BYTES, Buffer, Survivors, Unmask
from repro.secagg.rounds import Round

Report = Callable[[str], None]
# The round announced -> the hospital's (dimension,) float32 or float64 vector and its weight.
Prepare = Callable[[Announcement], Contribution]


@dataclass(frozen=True)
class Taking:
    """A round that is being taken part in."""

    hospital: Hospital
    contribution: Contribution
    witness: Witness


class Member:
    """A hospital over its rounds: what is announced, what it gives, what it has begun."""

    def __init__(
        self,
        place: Place,
        prepare: Prepare,
        counter: FileCounter,
        log: Transcript,
        report: Report,
    ) -> None:
        self._identity = load_identity(place.key, counter)
        self._pinned, self._counter, self._log = place.pinned(), counter, log
        self._prepare, self.report = prepare, report
        self._prepared: tuple[Announcement, Contribution] | None = None

    def directory(self) -> FederationDirectory:
        """The operator's, as it is now. InputError if this hospital is not in it."""
        directory = self._pinned.current()
        self._own_id(directory)
        return directory

    def heard(self, raw: Buffer, directory: FederationDirectory) -> Announcement:
        """The announcement in ``raw``. Refused if it is not the server's, or for a round that
        was begun before, or under another directory."""
        announcement = Announcement.from_bytes(raw, directory.server)
        if announcement.digest != directory.digest or announcement.session != directory.session:
            raise Refused(
                f"the server goes by another directory than this one of serial {directory.serial}"
            )
        last = self._counter.last(announcement.session)
        if announcement.number <= last:
            raise Refused(f"round {announcement.number} is open, and was begun before; waiting")
        return announcement

    def prepare(self, announcement: Announcement) -> None:
        """Make the contribution to the round announced, once."""
        if self._prepared is None or self._prepared[0] != announcement:
            self.report(f"round {announcement.number}: making the vector")
            self._prepared = announcement, self._prepare(announcement)

    def begin(self, directory: FederationDirectory, announcement: Announcement) -> Taking:
        """Join the round that was prepared for. Its number is durable when this returns."""
        assert self._prepared is not None
        assert self._prepared[0] == announcement
        contribution = self._prepared[1]
        me = self._own_id(directory)
        round_ = directory.round(announcement.number, announcement.application)
        round_.encoding.check(contribution.vector, contribution.weight)
        # The counter is on the disk when this returns: whatever happens from here on, the
        # number is not used again.
        hospital = Hospital(me, self._identity, round_)
        self._log.append("begun", session=round_.session.hex(), round=round_.number)
        self.report(f"round {round_.number}: taking part as hospital {me}")
        return Taking(hospital, contribution, Witness(self._log, round_, me))

    def finished(self, taking: Taking) -> None:
        """Note that the last message of the round is sent."""
        number, self._prepared = taking.hospital.round.number, None
        self._log.append("done", round=number)
        self._log.sync()
        self.report(f"round {number}: done")

    def _own_id(self, directory: FederationDirectory) -> int:
        for one, public in directory.hospitals.items():
            if public == self._identity.public:
                return one
        gone = self._identity.public in directory.revoked
        expected = "a key that has not been revoked" if gone else "a key that the directory lists"
        raise InputError("key", self._identity.public.hex(), expected)


@contextlib.contextmanager
def open_member(
    place: Place, prepare: Prepare, report: Report = lambda line: None
) -> Iterator[Member]:
    """A hospital with its state folder open, which no other process may have."""
    identity = load_identity(place.key)
    with (
        open_counter(place.state / "rounds.json", place.missed) as counter,
        open_transcript(place.state / "transcript.log", identity) as log,
    ):
        yield Member(place, prepare, counter, log, report)


class Witness:
    """Notes a hospital's messages in its log, and whose secrets it gave shares of."""

    def __init__(self, log: Transcript, round_: Round, hospital: int) -> None:
        self._log, self._round, self._hospital = log, round_, hospital
        self._survivors: frozenset[int] = frozenset()

    def __call__(self, way: str, phase: str, message: Buffer) -> None:
        direction = "up" if way == "sent" else "down"
        self._log.message(way, direction, self._round, phase, self._hospital, message)
        payload = memoryview(message)[HEADER_BYTES:-SIGNATURE_BYTES]
        if (way, phase) == ("received", "consistency"):
            told = Survivors.from_bytes(payload, self._round.bitmap_bytes)
            self._survivors = self._round.from_bitmap(told.survivors)
        elif (way, phase) == ("sent", "unmask"):
            owners = {owner for owner, _ in Unmask.from_bytes(payload).shares}
            self._log.append(
                "opened secrets",
                session=self._round.session.hex(),
                round=self._round.number,
                self_masks=sorted(owners & self._survivors),
                mask_keys=sorted(owners - self._survivors),
            )
