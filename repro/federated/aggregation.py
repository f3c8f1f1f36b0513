"""Aggregators: updates + weights → weighted mean.

An aggregator takes one update at a time, so that no process ever holds K of them, and returns
the mean together with what the round's record should say about it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from repro.federated.parallel.exact_sum import ExactWeightedSum
from repro.federated.parallel.ranks import Ranks
from repro.shapes import Float


@dataclass(frozen=True)
class Aggregated:
    """A round's mean update, and the facts worth keeping."""

    mean: Float[Tensor, " size"]  # float32
    survivors: tuple[int, ...]  # hospitals whose updates are in the mean
    facts: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Aggregator(Protocol):
    """One round: ``start``, an ``add`` per hospital this process holds, ``finish``."""

    def start(self, round_number: int, weights: dict[int, int], like: Tensor) -> None: ...

    def add(self, hospital: int, update: Float[Tensor, " size"]) -> None: ...

    def finish(self) -> Aggregated: ...


class PlainAggregator:
    """FedAvg's mean weighted by local training images [code]; the server sees every update."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def start(self, round_number: int, weights: dict[int, int], like: Tensor) -> None:
        """weights: of every hospital of the round, on any rank. like: a vector of that size."""
        self._weights = weights
        self._sum = ExactWeightedSum(like.numel(), sum(weights.values()), like.device)

    def add(self, hospital: int, update: Float[Tensor, " size"]) -> None:
        self._sum.add(update, self._weights[hospital])

    def finish(self) -> Aggregated:
        self.ranks.sum_(self._sum.total)
        weight = self.ranks.sum_(torch.tensor([self._sum.weight], dtype=torch.int64))
        self._sum.weight = int(weight)
        return Aggregated(self._sum.mean(), tuple(sorted(self._weights)))
