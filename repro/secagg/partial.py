"""The masked-input phase taken in at several places at once.

Masked inputs are large and many, and nothing in them is secret from the server, so several
machines may receive them, each keeping one running sum. ``Server.masked_sum`` goes on from the
sum of those sums; the signatures and everything after are as ever.
"""

from __future__ import annotations

from collections.abc import Collection

from repro.secagg import messages
from repro.secagg.errors import Refused
from repro.secagg.messages import Buffer, Kind
from repro.secagg.rounds import Round


class MaskedSum:
    """Some hospitals' MASKED messages, added up as they come.

    awaited: the hospitals whose messages belong here. After the phase, ``senders`` are those
    in ``total``, (dimension,) reduced field elements; ``refusals`` has a line for each message
    that was not accepted.
    """

    def __init__(self, round_: Round, awaited: Collection[int]) -> None:
        self.round = round_
        self.total = round_.field.zeros(round_.dimension)
        self.senders: set[int] = set()
        self.refusals: list[str] = []
        self._awaited = set(awaited)

    def add(self, message: Buffer) -> None:
        """Take in one message; a bad one is noted and leaves the sum as it was."""
        try:
            sender, payload = messages.unwrap(message, Kind.MASKED, self.round)
            if sender not in self._awaited:
                raise Refused(f"a message that is late or came twice, from {sender}")
            vector = messages.masked_from_bytes(payload, self.round.field, self.round.dimension)
        except Refused as reason:
            self.refusals.append(f"masked: {reason}")
            return
        self.round.field.add_into(self.total, vector)
        self.senders.add(sender)
        self._awaited.discard(sender)
