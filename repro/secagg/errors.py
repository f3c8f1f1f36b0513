"""The two ways a secure aggregation goes wrong, apart from a caller's bad input."""

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
    needed: what would have been enough, in words.
    """

    def __init__(self, phase: str, remaining: Collection[int], needed: str) -> None:
        self.phase, self.remaining, self.needed = phase, sorted(remaining), needed
        super().__init__(
            f"{phase}: {len(self.remaining)} hospitals left; needed {needed}; nothing was unmasked"
        )
