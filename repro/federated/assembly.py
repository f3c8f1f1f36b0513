"""Composes an arm's three parts from its settings: local trainer, mechanism, aggregator.

This is the one place where ``repro.privacy`` and ``repro.secagg`` meet the federation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from repro.federated.aggregation import Aggregator, PlainAggregator
from repro.federated.local_training import PlainTrainer
from repro.federated.ranks import Ranks
from repro.random import RootSeed
from repro.settings import RunSettings


@dataclass(frozen=True)
class Noted:
    """What a mechanism says of one update."""

    counts: dict[str, float]


def unchanged(update: Tensor, *, seed: RootSeed, hospital: int, round: int) -> tuple[Tensor, Noted]:
    return update, Noted({})


def assemble_privacy(
    settings: RunSettings, weights: dict[int, int], seed: RootSeed, ranks: Ranks
) -> dict[str, Any]:
    """The parts of ``Federation`` that differ between arms, as keyword arguments."""
    return {
        "trainer": PlainTrainer(settings.local),
        "mechanism": unchanged,
        "aggregator": _aggregator(settings, weights, seed, ranks),
    }


def _aggregator(
    settings: RunSettings, weights: dict[int, int], seed: RootSeed, ranks: Ranks
) -> Aggregator:
    if settings.secagg is None:
        return PlainAggregator(ranks)
    from repro.federated.secure import SecureAggregation

    return SecureAggregation(settings.secagg, weights, seed)
