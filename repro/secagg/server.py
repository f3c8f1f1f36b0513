"""The server's side of one round: one method a phase, each fed with the messages that came.

A message that is late, double, malformed or foreign is refused, noted in ``refusals`` and
forgotten; the round goes on with the hospitals that are left. The masked inputs are added up as
they arrive, so the server holds one vector, the shares, and one message at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from repro.errors import InputError
from repro.secagg import graph, messages, shamir
from repro.secagg.complaints import Complaints
from repro.secagg.errors import Refused, RoundFailed
from repro.secagg.hospital import (
    pairwise_mask_key,
    seed_commitment,
    self_mask_key,
    survivor_statement,
)
from repro.secagg.keys import AgreementKey, Identity, check_public, verify
from repro.secagg.masks import add_mask, subtract_mask
from repro.secagg.messages import Advertise, Buffer, Kind
from repro.secagg.partial import read_masked
from repro.secagg.rounds import PHASES, Round
from repro.secagg.sealing import share_commitment

Take = Callable[[int, memoryview, Buffer], None]  # sender, payload, whole message
Answers = dict[int, bytearray]  # hospital -> the message to send to it


class Server:
    """The server in one round.

    After the round: ``total`` is the sum, (dimension,) field elements; ``survivors`` are the
    hospitals whose input is in it; ``refusals`` has one line for each message that was not
    accepted, ``excluded`` a reason for each hospital that was caught lying and left out. While a
    phase runs, ``awaited`` are the hospitals that may still answer, so that whoever feeds the
    messages knows when to stop.
    """

    def __init__(self, identity: Identity, round_: Round) -> None:
        if round_.directory.server != identity.public:
            raise InputError("identity", "a key", "the one the directory has for the server")
        self.round, self._identity = round_, identity
        self.phase = PHASES[0]
        self.awaited: set[int] = set(round_.roster)
        self.refusals: list[str] = []
        self.survivors: frozenset[int] = frozenset()
        self.total: np.ndarray | None = None
        self._complaints = Complaints(round_)
        self._sharers: frozenset[int] = frozenset()
        self._advertised: dict[int, bytes] = {}
        self._keys: dict[int, Advertise] = {}
        self._taken: set[bytes] = set()  # all keys advertised
        self._shares: dict[int, messages.Share] = {}
        self._entries: dict[tuple[int, int], messages.SealedShare] = {}  # (owner, holder)
        self._verified: set[int] = set()  # those that have looked at what was sealed for them
        self._sum: np.ndarray | None = None
        self._masked_with: dict[int, bytes] = {}  # signatures under who shared
        self._signatures: dict[int, bytes] = {}  # signatures under who survived
        self._recovered: dict[int, dict[int, bytes]] = {}  # owner -> place -> share
        self._wrong: set[int] = set()  # those that gave another share than they had confirmed

    def advertise_keys(self, received: Iterable[Buffer]) -> Answers:
        """ADVERTISE from all -> ROSTER for each: its neighbours' keys."""
        self._expect("advertise")
        self._collect(received, self._take_keys)
        present = self._viable(self._keys)
        self._advance("share", present)
        return {
            one: self._wrap(
                Kind.ROSTER,
                messages.Roster(tuple(self._advertised[n] for n in self._near(one, present))),
            )
            for one in sorted(present)
        }

    def receive(self, received: Iterable[Buffer]) -> Answers:
        """What the phase that is on makes of its messages: the next phase's, by receiver.

        Who gets none has nothing to answer in the next phase. After the last phase there are
        none, and ``total`` is there.
        """
        if self.phase == "unmask":
            self.unmask(received)
            return {}
        steps: dict[str, Callable[[Iterable[Buffer]], Answers]] = {
            "advertise": self.advertise_keys,
            "share": self.share_keys,
            "verify": self.verify_shares,
            "open": self.open_shares,
            "masked": self.masked_input,
            "consistency": self.consistency_check,
        }
        if self.phase not in steps:
            raise Refused(f"messages in phase {self.phase}")
        return steps[self.phase](received)

    @property
    def excluded(self) -> dict[int, str]:
        return self._complaints.excluded

    def dismisses(self, hospital: int) -> bool:
        """Whether nothing more will be asked in this round of one that gets no message now. Only
        the accused are asked to open shares; the others wait."""
        return self.phase != "open"

    def share_keys(self, received: Iterable[Buffer]) -> Answers:
        """SHARE from those -> DELIVERY for each: the shares its neighbours sealed for it."""
        self._expect("share")
        expected = frozenset(self.awaited)
        self._collect(received, lambda *got: self._take_shares(expected, *got))
        present = self._viable(self._shares)
        self._advance("verify", present)
        self._entries = {
            (owner, entry.holder): entry
            for owner in present
            for entry in self._shares[owner].shares
        }
        answers = {}
        for one in sorted(present):
            near = self._near(one, present)
            entries = tuple((n, self._entries[n, one].to_bytes()) for n in near)
            answers[one] = self._wrap(Kind.DELIVERY, messages.Delivery(entries))
        return answers

    def verify_shares(self, received: Iterable[Buffer]) -> Answers:
        """VERIFY from those -> ACCUSED for those complained of; or, if nobody is, SHARERS."""
        self._expect("verify")
        self._collect(received, self._take_verdict)
        accused = self._complaints.accused
        if not accused:
            return self._settle()
        self._advance("open", accused)
        return {
            owner: self._wrap(Kind.ACCUSED, messages.Accused(tuple(sorted(signed.items()))))
            for owner, signed in sorted(accused.items())
        }

    def open_shares(self, received: Iterable[Buffer]) -> Answers:
        """OPEN from the accused -> SHARERS for those in the right and the others."""
        self._expect("open")
        self._collect(received, self._take_opened)
        self._complaints.convict_the_silent()
        return self._settle()

    def _settle(self) -> Answers:
        """Who lied, and who did not confirm its shares, is out before anything is masked."""
        self._sharers = frozenset(self._viable(self._verified - set(self.excluded)))
        self._advance("masked", self._sharers)
        sharers = messages.Sharers(self.round.to_bitmap(self._sharers))
        # One message for all: to wrap it for each would sign the same bytes K times.
        return dict.fromkeys(sorted(self._sharers), self._wrap(Kind.SHARERS, sharers))

    def masked_input(self, received: Iterable[Buffer]) -> Answers:
        """MASKED from those, added up as they come -> SURVIVORS for each."""
        self._expect("masked")
        self._sum = self.round.field.zeros(self.round.dimension)
        expected = frozenset(self.awaited)
        self._collect(received, self._take_masked)
        return self._announce(expected - self.awaited)

    def masked_sum(self, signatures: Mapping[int, bytes], total: np.ndarray) -> Answers:
        """``masked_input`` where ``MaskedSum`` objects elsewhere have taken the messages in.

        signatures: theirs, together; total: (dimension,) reduced field elements, their sum, kept
        and changed. Raises InputError for senders that were not awaited or a sum that is no
        vector of the round: these come from the server's own machines, not from a hospital.
        """
        self._expect("masked")
        strangers = sorted(set(signatures) - self.awaited)
        if strangers:
            raise InputError("senders", strangers, "hospitals whose masked input is awaited")
        if total.shape != (self.round.dimension,):
            raise InputError("total", total.shape, f"({self.round.dimension},)")
        self.round.field.check(total)
        self._sum, self._masked_with = total, dict(signatures)
        return self._announce(frozenset(signatures))

    def _announce(self, survivors: frozenset[int]) -> Answers:
        self.survivors = survivors
        shortfall = self.round.shortfall(self._sharers, self.survivors)
        if shortfall:
            raise self._failed(self.survivors, shortfall)
        self._advance("consistency", self.survivors)
        bitmap, answers = self.round.to_bitmap(self.survivors), {}
        for one in sorted(self.survivors):
            near = tuple((n, self._masked_with[n]) for n in self._near(one, self.survivors))
            answers[one] = self._wrap(Kind.SURVIVORS, messages.Survivors(bitmap, near))
        return answers

    def consistency_check(self, received: Iterable[Buffer]) -> Answers:
        """CONSISTENCY from those -> CONFIRMATION for each that answered: a quorum's signatures."""
        self._expect("consistency")
        self._collect(received, self._take_signature)
        signers = sorted(self._signatures)
        shortfall = self.round.holders_missing(self._sharers, signers)
        if shortfall:
            raise self._failed(signers, shortfall)
        self._advance("unmask", signers)
        counted = [one for one in signers if one in self.round.confirmers]
        quorum = tuple((one, self._signatures[one]) for one in counted[: self.round.quorum])
        # One message for all: to wrap it for each would sign and keep the same bytes K times.
        confirmation = self._wrap(Kind.CONFIRMATION, messages.Confirmation(quorum))
        return dict.fromkeys(signers, confirmation)

    def unmask(self, received: Iterable[Buffer]) -> np.ndarray:
        """UNMASK from those -> the survivors' sum, (dimension,) field elements."""
        self._expect("unmask")
        self._recovered = {owner: {} for owner in self._sharers}
        expected = frozenset(self.awaited)
        self._collect(received, self._take_unmask)
        needed = self.round.threshold
        for owner, shares in self._recovered.items():
            if len(shares) < needed:
                shortfall = f"{needed} shares of hospital {owner}'s secret"
                raise self._failed(expected - self.awaited, shortfall)
        secrets = {owner: self._secret(owner) for owner in sorted(self._sharers)}
        total = self._sum
        assert total is not None
        for owner, secret in secrets.items():
            self._remove_masks(total, owner, secret)
        self._advance("done", ())
        self._sum, self.total = None, total
        return total

    def _take_keys(self, sender: int, payload: memoryview, message: Buffer) -> None:
        keys = Advertise.from_bytes(payload)
        both = {keys.mask_key, keys.seal_key}
        if len(both) < 2 or both & self._taken:
            raise Refused("a key that is there already")
        for key in both:  # the neighbours would refuse it, and leave
            check_public(key)
        self._taken |= both
        self._keys[sender], self._advertised[sender] = keys, bytes(message)

    def _take_shares(
        self, present: Collection[int], sender: int, payload: memoryview, _: Buffer
    ) -> None:
        share = messages.Share.from_bytes(payload)
        holders = [entry.holder for entry in share.shares]
        if holders != self.round.holders(sender, present):
            raise Refused("shares for others than the neighbours that advertised")
        self._shares[sender] = share

    def _take_verdict(self, sender: int, payload: memoryview, _: Buffer) -> None:
        complaints = messages.UpheldComplaints.from_bytes(payload).complaints
        for owner, signature in complaints:
            entry = self._entries.get((owner, sender))
            if entry is None or owner == sender:
                raise Refused(f"a complaint of {owner}, which sealed nothing for {sender}")
            self._complaints.file(owner, sender, entry, signature)
        self._verified.add(sender)

    def _take_opened(self, sender: int, payload: memoryview, _: Buffer) -> None:
        opened = messages.Opened.from_bytes(payload)
        entries = {holder: self._entries[sender, holder] for holder in self._seal_keys_of(sender)}
        self._complaints.judge(sender, dict(opened.secrets), entries, self._seal_keys_of(sender))

    def _seal_keys_of(self, owner: int) -> dict[int, bytes]:
        """The seal keys of the holders that complained of the owner."""
        return {one: self._keys[one].seal_key for one in self._complaints.accused[owner]}

    def _take_masked(self, sender: int, payload: memoryview, _: Buffer) -> None:
        masked = read_masked(self.round, self._sharers, sender, payload)
        assert self._sum is not None
        self.round.field.add_into(self._sum, masked.vector)
        self._masked_with[sender] = masked.signature

    def _take_signature(self, sender: int, payload: memoryview, _: Buffer) -> None:
        signature = messages.Consistency.from_bytes(payload).signature
        statement = survivor_statement(self.round, self._sharers, self.survivors)
        public = self.round.directory.hospitals[sender]
        if not verify(public, "survivors", statement, signature):
            raise Refused("a signature under other survivors")
        self._signatures[sender] = signature

    def _take_unmask(self, sender: int, payload: memoryview, _: Buffer) -> None:
        shares = messages.Unmask.from_bytes(payload).shares
        if [owner for owner, _ in shares] != self.round.holders(sender, self._sharers):
            raise Refused("shares of others than its neighbours that shared")
        for owner, share in shares:
            commitment = share_commitment(self.round, self._kind(owner), owner, sender, share)
            if commitment == self._committed(owner, sender):
                self._recovered[owner][self.round.place(sender)] = share
            else:  # it had confirmed a share that fits; its other shares may be good
                self._wrong.add(sender)
                self.refusals.append(f"unmask: a wrong share of hospital {owner} from {sender}")

    def _kind(self, owner: int) -> str:
        return "seed" if owner in self.survivors else "key"

    def _committed(self, owner: int, holder: int) -> bytes:
        entry = self._entries[owner, holder]
        return entry.self_mask_commitment if owner in self.survivors else entry.mask_key_commitment

    def _secret(self, owner: int) -> bytes:
        """The owner's seed (it survived) or mask key (it did not), checked against its word."""
        try:
            secret = shamir.combine(self._recovered[owner], self.round.threshold)
        except Refused:
            secret = b""
        if owner in self.survivors:
            commitment = seed_commitment(self.round, owner, secret)
            right = commitment == self._shares[owner].seed_commitment
        else:
            right = bool(secret) and AgreementKey(secret).public == self._keys[owner].mask_key
        if not right:
            needed = f"hospital {owner} to have shared what it used"
            raise self._failed(self.survivors, needed, {owner})
        return secret

    def _remove_masks(self, total: np.ndarray, owner: int, secret: bytes) -> None:
        field, context = self.round.field, self.round.context
        if owner in self.survivors:
            subtract_mask(field, total, self_mask_key(secret, context, owner))
            return
        key = AgreementKey(secret)
        for other in self._near(owner, self.survivors):
            shared = pairwise_mask_key(key, self._keys[other].mask_key, context, owner, other)
            # The survivor has added this mask if its id is the lower one, else subtracted it.
            (subtract_mask if other < owner else add_mask)(field, total, shared)

    def _expect(self, phase: str) -> None:
        if self.phase != phase:
            raise Refused(f"phase {phase} after phase {self.phase}")

    def _collect(self, received: Iterable[Buffer], take: Take) -> None:
        for message in received:
            self._receive(message, take)

    def _receive(self, message: Buffer, take: Take) -> None:
        kind = Kind[self.phase.upper()]
        try:
            if kind == Kind.ADVERTISE:
                sender, payload = messages.unwrap_first(message, Kind.ADVERTISE, self.round)
            else:
                sender, payload = messages.unwrap(message, kind, self.round)
            if sender not in self.awaited:
                raise Refused(f"a message that is late or came twice, from {sender}")
            take(sender, payload, message)
        except Refused as reason:
            self.refusals.append(f"{self.phase}: {reason}")
        else:
            self.awaited.discard(sender)

    def _near(self, hospital: int, among: Collection[int]) -> list[int]:
        return [one for one in self.round.holders(hospital, among) if one != hospital]

    def _viable(self, present: Collection[int]) -> set[int]:
        left = graph.viable(self.round.graph, present, self.round.threshold)
        shortfall = self.round.shortfall(left, left)
        if shortfall:
            raise self._failed(present, shortfall)
        return left

    def _advance(self, phase: str, awaited: Iterable[int]) -> None:
        self.phase, self.awaited = phase, set(awaited)

    def _failed(
        self, remaining: Collection[int], needed: str, culprits: Collection[int] = ()
    ) -> RoundFailed:
        liars = {*culprits, *self.excluded, *self._wrong}
        failure = RoundFailed(self.phase, remaining, needed, liars)
        self._advance("failed", ())
        self.survivors = frozenset()
        self._sum = None
        self._recovered.clear()
        return failure

    def _wrap(
        self,
        kind: Kind,
        payload: messages.Payload,
    ) -> bytearray:
        return messages.wrap(kind, messages.SERVER, self.round, self._identity, payload.to_bytes())
