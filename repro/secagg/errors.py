"""The ways a secure aggregation goes wrong, apart from a caller's bad input."""

from __future__ import annotations

from collections.abc import Collection


class Refused(Exception):
    """A message (or a request in it) that the receiving party will not act upon.

    The only exception that reading bytes from another party may raise. The receiver's secrets
    and the running sum are unchanged by a refused message.
    """


class RoundFailed(Exception):
    """The round ended without a sum, and without anything being unmasked.

    phase: the phase that could not be completed; remaining: the hospitals still there;
    needed: what would have been enough, in words; culprits: hospitals that provably caused it.
    """

    def __init__(
        self, phase: str, remaining: Collection[int], needed: str, culprits: Collection[int] = ()
    ) -> None:
        self.phase, self.remaining, self.needed = phase, sorted(remaining), needed
        self.culprits = tuple(sorted(culprits))
        super().__init__(self._line())

    def _line(self) -> str:
        left = f"{len(self.remaining)} hospitals left; needed {self.needed}"
        return f"{self.phase}: {left}; nothing was unmasked"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by their message; other processes need the parts.
        return (type(self), (self.phase, self.remaining, self.needed, self.culprits))


class ImpossibleSum(RoundFailed):
    """The unmasked sum is none that honest hospitals can have: it is thrown away.

    Some hospital has spoiled it. Which one nobody can know, so ``culprits`` is empty: a vector
    moved from one survivor's input to another's, and the masks between them by as much, leave
    every message as it is. ``needed`` says which public bound is broken.
    """

    def _line(self) -> str:
        spoiled = "a hospital has spoiled the sum (the masks hide which), which is thrown away"
        return f"{self.phase}: {self.needed}; {spoiled}"
