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

    def owners(self, cost: dict[int, int], together: int = 1) -> dict[int, int]:
        """id → the rank that works on it, balanced by cost; the same on every rank.

        together: how many ids are worked on at once; such a group stays on one rank.
        Greedy longest-first: groups by falling cost, each to the least loaded rank so far
        (Graham 1969: within 4/3 of the best possible). O(n log n).
        """
        loads = [(0, rank) for rank in range(self.size)]
        owner: dict[int, int] = {}
        for group in groups_of(cost, together):
            load, rank = loads[0]
            heapq.heapreplace(loads, (load + sum(cost[one] for one in group), rank))
            owner |= dict.fromkeys(group, rank)
        return owner

    def share(self, cost: dict[int, int], together: int = 1) -> list[int]:
        """The ids this rank works on, in ascending order."""
        owners = self.owners(cost, together)
        return sorted(one for one, rank in owners.items() if rank == self.rank)

    def groups(self, cost: dict[int, int], together: int = 1) -> list[list[int]]:
        """The groups this rank works on, by their first ids."""
        owners = self.owners(cost, together)
        return sorted(g for g in groups_of(cost, together) if owners[g[0]] == self.rank)


def groups_of(cost: dict[int, int], together: int) -> list[list[int]]:
    """All ids, ``together`` of like cost in a group (the last may be smaller), costly ones first.

    The number of ranks has no part in it: what a group computes is the same bits on any.
    """
    ordered = sorted(cost, key=lambda one: (-cost[one], one))
    return [ordered[start : start + together] for start in range(0, len(ordered), together)]
