"""The masked-input phase taken in at several places at once.

Masked inputs are large and many, and nothing in them is secret from the server, so several
machines may receive them, each keeping one running sum. ``Server.masked_sum`` goes on from the
sum of those sums; the signatures and everything after are as ever.
"""

from __future__ import annotations

from collections.abc import Collection

from repro.secagg import messages
from repro.secagg.errors import Refused
from repro.secagg.hospital import sharer_statement
from repro.secagg.keys import verify
from repro.secagg.messages import Buffer, Kind, Masked
from repro.secagg.rounds import Round


class MaskedSum:
    """Some hospitals' MASKED messages, added up as they come.

    sharers: the hospitals whose shares the server has delivered; awaited: those of them whose
    messages belong here. After the phase, ``signatures`` has what each sender has signed about
    the sharers, ``total`` is the senders' sum, (dimension,) reduced field elements, and
    ``refusals`` has a line for each message that was not accepted.
    """

    def __init__(self, round_: Round, sharers: Collection[int], awaited: Collection[int]) -> None:
        self.round = round_
        self.total = round_.field.zeros(round_.dimension)
        self.signatures: dict[int, bytes] = {}
        self.refusals: list[str] = []
        self._sharers = frozenset(sharers)
        self._awaited = set(awaited) & self._sharers

    def add(self, message: Buffer) -> None:
        """Take in one message; a bad one is noted and leaves the sum as it was."""
        try:
            sender, payload = messages.unwrap(message, Kind.MASKED, self.round)
            if sender not in self._awaited:
                raise Refused(f"a message that is late or came twice, from {sender}")
            masked = read_masked(self.round, self._sharers, sender, payload)
        except Refused as reason:
            self.refusals.append(f"masked: {reason}")
            return
        self.round.field.add_into(self.total, masked.vector)
        self.signatures[sender] = masked.signature
        self._awaited.discard(sender)


def read_masked(round_: Round, sharers: frozenset[int], sender: int, payload: memoryview) -> Masked:
    """The content of a MASKED message, if it is masked with these sharers; else Refused."""
    masked = Masked.from_bytes(payload, round_.field, round_.dimension)
    statement = sharer_statement(round_, sharers)
    public = round_.directory.hospitals[sender]
    if not verify(public, "sharers", statement, masked.signature):
        raise Refused("an input masked with others than those that shared")
    return masked
