"""The processes of one run: alone by default, or many under ``torchrun``.

The loop asks for nothing but the methods below and those of ``repro.secagg.driver.Places``, so
there is one code path for training. ``repro.federated.parallel.distributed`` has the many.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from repro.secagg.driver import OnePlace
from repro.secagg.field import Field

Result = TypeVar("Result")


class Ranks(OnePlace):
    """One process on its own."""

    here = 1  # ranks on this machine: they share its cores

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum an integer tensor over all ranks, in place."""
        return tensor

    def add_up(self, vector: np.ndarray, field: Field) -> np.ndarray:
        """Σ over ranks of (n,) field elements, modulo p, by sums of int64 that cannot overflow.

        An element's low 31 bits and what is above them are added apart; each such sum is below
        ranks · 2³¹. With p = 2⁶¹ − 1 and high = 2³⁰·a + b, 2³¹·high = 2⁶¹·a + 2³¹·b ≡ a + 2³¹·b.
        """
        elements = torch.from_numpy(vector.astype(np.int64))
        total = self.sum_(elements & (2**31 - 1)).numpy()
        if field.bits > 31:
            high = self.sum_(elements >> 31).numpy()
            total = total + (high >> 30) + ((high & (2**30 - 1)) << 31)
        return (total % field.modulus).astype(field.dtype)

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
