"""The processes of one run: alone by default, or many under ``torchrun``.

The loop asks for nothing but the five methods below, so there is one code path for training.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Ranks:
    """One process on its own."""

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Does this process write files and talk to the user?"""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum an integer tensor over all ranks, in place."""
        return tensor

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value (any picklable object) on every rank."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Everybody's value, by rank, on every rank."""
        return [value]

    def share(self, cost: dict[int, int]) -> list[int]:
        """The ids this rank works on, balanced by cost, in ascending order.

        Greedy longest-first: ids by falling cost, each to the least loaded rank so far
        (Graham 1969: within 4/3 of the best possible).
        """
        loads = [0] * self.size
        mine: list[int] = []
        for identity in sorted(cost, key=lambda i: (-cost[i], i)):
            rank = min(range(self.size), key=lambda r: (loads[r], r))
            loads[rank] += cost[identity]
            if rank == self.rank:
                mine.append(identity)
        return sorted(mine)
