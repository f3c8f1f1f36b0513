"""A hospital's own part in a federation's rounds, whatever brings the messages.

Everything that must survive the process lies in its state folder: the counter of rounds begun,
the last directory accepted, the log. Killed at any moment and started again, it takes part in
the next round; nothing is sent twice under one round's number.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from repro.errors import InputError
from repro.secagg.deploy.announcement import Announcement, Hello, max_application_bytes
from repro.secagg.deploy.counter import FileCounter, open_counter
from repro.secagg.deploy.directory import FederationDirectory, RoundOf, check_contribution
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.deploy.place import Place, state_id
from repro.secagg.deploy.transcript import Transcript, open_transcript
from repro.secagg.errors import Refused
from repro.secagg.hospital import Contribution
from repro.secagg.keys import SIGNATURE_BYTES
from repro.secagg.messages import HEADER_BYTES, Buffer, Survivors, Unmask
from repro.secagg.protocols import HospitalParty, protocol_of
from repro.secagg.rounds import BaseRound, Round

Report = Callable[[str], None]
# The round announced -> the hospital's (dimension,) float32 or float64 vector and its weight.
Prepare = Callable[[Announcement], Contribution]
Leaving = Callable[[Announcement], None]


@dataclass(frozen=True)
class Taking:
    """A round that is being taken part in."""

    hospital: HospitalParty
    contribution: Contribution
    witness: Witness
    announcement: Announcement
    leaving: Leaving

    def give(self) -> Contribution:
        """The contribution, about to be masked and sent."""
        self.leaving(self.announcement)
        return self.contribution


class Member:
    """A hospital over its rounds: what is announced, what it gives, what it has begun."""

    def __init__(
        self,
        place: Place,
        prepare: Prepare,
        counter: FileCounter,
        log: Transcript,
        report: Report,
        round_of: RoundOf,
        leaving: Leaving,
    ) -> None:
        self._identity, self._state = load_identity(place.key, counter), state_id(place.state)
        self._pinned, self._counter, self._log = place.pinned(report), counter, log
        self._prepare, self.report = prepare, report
        self._round_of, self._leaving = round_of, leaving
        self._prepared: tuple[Announcement, Contribution, float] | None = None  # last: seconds
        self._left_out: Announcement | None = None
        self._application: tuple[bytes, bytes] = (b"", b"")  # digest, content: the last one sent

    def directory(self) -> FederationDirectory:
        """The operator's, as it is now. InputError if this hospital is not in it."""
        directory = self._pinned.current()
        directory.id_of(self._identity.public)
        return directory

    def heard(self, raw: Buffer, directory: FederationDirectory) -> Announcement:
        """The announcement in ``raw``. Refused if it is not the server's, or under another
        directory, or about more bytes than a hospital takes."""
        announcement = Announcement.from_bytes(raw, directory.server)
        if announcement.digest != directory.digest or announcement.session != directory.session:
            raise Refused(
                f"the server goes by another directory than this one of serial {directory.serial}"
            )
        most = max_application_bytes(directory.settings.dimension)
        if announcement.length > most:
            raise Refused(
                f"an application of {announcement.length} bytes; at most {most} are taken"
            )
        return announcement

    def stale(self, announcement: Announcement) -> str:
        """Why this hospital cannot take part in the round: it was begun before or left out, or
        is too far after the last one. Empty if it can."""
        if announcement == self._left_out:
            return f"round {announcement.number} is open, and was left out; waiting"
        return self._counter.obstacle(announcement.session, announcement.number)

    def hello(
        self, announcement: Announcement, announced: Buffer, challenge: bytes, *, wanted: bool
    ) -> tuple[bytes, bool]:
        """Who this is, for one connection; and whether the application is to be sent, which is
        where it is wanted and not there yet."""
        wanted &= announcement.length > 0
        wants = wanted and announcement.application_digest != self._application[0]
        last = self._counter.last(announcement.session)
        hello = Hello(self.directory().id_of(self._identity.public), self._state, last, wants)
        return hello.to_bytes(self._identity, announced, challenge), wants

    def informed(self, announcement: Announcement, application: bytes | None) -> Announcement:
        """The announcement with its application: as sent, or (None) as kept."""
        if application is None:
            digest, kept = self._application
            return announcement.filled(kept if digest == announcement.application_digest else b"")
        announcement = announcement.filled(application)
        self._application = announcement.application_digest, application
        return announcement

    def prepare(self, announcement: Announcement, directory: FederationDirectory) -> None:
        """Make the contribution to the round announced, once. Refused if that fails, for whatever
        reason, or if it is none that the round takes: this hospital leaves the round out."""
        if self._prepared is not None:
            earlier, _, seconds = self._prepared
            if earlier == announcement:
                return
            self._prepared = None
            self.report(
                f"round {earlier.number} went on without this hospital, whose vector took "
                f"{seconds:.0f} s to make (`serve --opening` is how long a round stays open)"
            )
        self.report(f"round {announcement.number}: making the vector")
        began = time.monotonic()
        try:
            round_ = self._round_of(directory, announcement.number, announcement.application)
            contribution = self._prepare(announcement)
            check_contribution(round_, contribution)
        except Exception as problem:  # one bad step of training is no reason to stay away for good
            self._left_out = announcement
            what = str(problem) if isinstance(problem, InputError) else repr(problem)
            raise Refused(f"round {announcement.number} is left out: {what}") from problem
        self._prepared = announcement, contribution, time.monotonic() - began

    def begin(self, directory: FederationDirectory, announcement: Announcement) -> Taking:
        """Join the round that was prepared for. Its number is durable when this returns."""
        assert self._prepared is not None
        assert self._prepared[0] == announcement
        contribution = self._prepared[1]
        me = directory.id_of(self._identity.public)
        round_ = self._round_of(directory, announcement.number, announcement.application)
        # The counter is on the disk when this returns: whatever happens from here on, the
        # number is not used again.
        hospital = protocol_of(round_).hospital(me, self._identity, round_)
        self._prepared = None
        self._log.append(
            "begun",
            session=round_.session.hex(),
            round=round_.number,
            serial=directory.serial,
        )
        self.report(f"round {round_.number}: taking part as hospital {me}")
        witness = Witness(self._log, round_, me)
        return Taking(hospital, contribution, witness, announcement, self._leaving)

    def finished(self, taking: Taking) -> None:
        """Note that the last message of the round is sent."""
        number = taking.hospital.round.number
        self._log.append("done", session=taking.hospital.round.session.hex(), round=number)
        self._log.sync()
        self.report(f"round {number}: done")


@contextlib.contextmanager
def open_member(
    place: Place,
    prepare: Prepare,
    report: Report = lambda line: None,
    *,
    round_of: RoundOf = FederationDirectory.round,
    leaving: Leaving = lambda announcement: None,
) -> Iterator[Member]:
    """A hospital with its state folder open, which no other process may have.

    round_of: what a round is, see ``open_holder``. leaving: called before the masked contribution
        is made and sent; what it writes is on the disk by then, and if it raises nothing leaves.
    """
    identity = load_identity(place.key)
    with (
        open_counter(place.state / "rounds.json", place.missed) as counter,
        open_transcript(
            place.state / "transcript.log", identity, "hospital", watch=place.watch
        ) as log,
    ):
        yield Member(place, prepare, counter, log, report, round_of, leaving)


class Witness:
    """Notes a hospital's messages in its log, and whose secrets it gave shares of."""

    def __init__(self, log: Transcript, round_: BaseRound, hospital: int) -> None:
        self._log, self._round, self._hospital = log, round_, hospital
        self._survivors: frozenset[int] = frozenset()

    def __call__(self, way: str, phase: str, message: Buffer) -> None:
        direction = "up" if way == "sent" else "down"
        self._log.message(way, direction, self._round, phase, self._hospital, message)
        if not isinstance(self._round, Round):  # the other protocol shares no hospital's secrets
            return
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
