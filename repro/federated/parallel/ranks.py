"""The processes of one run: alone by default, or many under ``torchrun``.

The loop asks for nothing but the methods below, so there is one code path for training.
``repro.federated.parallel.distributed`` has the many.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

Result = TypeVar("Result")


class Ranks:
    """One process on its own."""

    rank = 0
    size = 1
    here = 1  # ranks on this machine: they share its cores

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

    def collect(self, value: Any) -> list[Any]:
        """Everybody's value, by rank, on rank 0; elsewhere an empty list."""
        return [value]

    def hand_out(self, values: list[Any]) -> Any:
        """Each rank's own entry of rank 0's list (elsewhere ``values`` is ignored)."""
        return values[0]

    def agree(self, prepare: Callable[[], Result], facts: Callable[[Result], Any]) -> Result:
        """``prepare()`` on every rank; one InputError for all if any fails or ``facts`` differ."""
        return prepare()

    def device(self, name: str | None) -> str | None:
        """The device of this rank where the user has asked for ``name`` (None: the best)."""
        return name

    def owners(self, cost: dict[int, int]) -> dict[int, int]:
        """id → the rank that works on it, balanced by cost; the same on every rank.

        Greedy longest-first: ids by falling cost, each to the least loaded rank so far
        (Graham 1969: within 4/3 of the best possible). O(n log n).
        """
        loads = [(0, rank) for rank in range(self.size)]
        owner: dict[int, int] = {}
        for one in sorted(cost, key=lambda one: (-cost[one], one)):
            load, owner[one] = loads[0]
            heapq.heapreplace(loads, (load + cost[one], owner[one]))
        return owner

    def share(self, cost: dict[int, int]) -> list[int]:
        """The ids this rank works on, in ascending order."""
        return sorted(one for one, rank in self.owners(cost).items() if rank == self.rank)
