"""Which round of a session a hospital has last joined: numbers go up by one, for good.

A server that could repeat a round could replay keys it recovered in it; one that could choose
its number could look for a neighbour graph that suits it, or use up all numbers at once.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from repro.checks import check_count
from repro.secagg.errors import Refused


@runtime_checkable
class RoundCounter(Protocol):
    """A hospital's memory of its rounds.

    An identity whose secret outlives the process needs one that does, too: a counter that
    forgets lets the server repeat a round.
    """

    def advance(self, session: bytes, number: int) -> None:
        """Note that round ``number`` of ``session`` is joined; a session's first is round 1.

        Refused unless it is the next one. Returns only when the new number is stored as durably
        as the identity's secret: nothing of the round is sent before.
        """


def check_next(last: int, number: int, missed: int = 0) -> None:
    """Refuse ``number`` unless it follows ``last``, with at most ``missed`` left out between."""
    if not last < number <= last + 1 + missed:
        raise Refused(f"round {number} after round {last}: the next one is round {last + 1}")


class MemoryCounter:
    """In memory: for identities that are made afresh in every process.

    missed: rounds that may have been held without this hospital since its last one. Each of
    them is a choice of the server's, so keep it at what an outage takes.
    """

    def __init__(self, missed: int = 0) -> None:
        self.missed = check_count("missed", missed, least=0)
        self._last: dict[bytes, int] = {}

    def advance(self, session: bytes, number: int) -> None:
        check_next(self._last.get(session, 0), number, self.missed)
        self._last[session] = number
