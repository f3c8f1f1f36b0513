"""Secure aggregation as the federation's aggregator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.federated.aggregation import Aggregated
from repro.random import RootSeed
from repro.secagg import RoundFailed, SecAggSettings, SecureAggregator
from repro.settings import SecAggParameters
from repro.typing import Float


class SecureAggregation:
    """FedAvg's weighted mean, of which the server learns the sum and nothing else.

    settings.drop_rate: each round, this fraction of hospitals (rounded down, drawn by the run's
        seed) is lost before it sends its masked input; the mean is of the others.
    """

    def __init__(self, settings: SecAggParameters, weights: dict[int, int], seed: RootSeed) -> None:
        self.settings, self.seed = settings, seed
        self.protocol = SecureAggregator(
            SecAggSettings(
                threshold=settings.threshold,
                neighbours=settings.neighbours,
                clip_range=settings.value_range,
                max_weight=public_bound(weights),
                levels=settings.levels,
            ),
            sorted(weights),
        )

    def start(self, round_number: int, weights: dict[int, int], like: Tensor) -> None:
        self._round, self._weights, self._like = round_number, weights, like
        self._updates: dict[int, np.ndarray] = {}

    def add(self, hospital: int, update: Float[Tensor, " size"]) -> None:
        self._updates[hospital] = update.cpu().numpy()

    def finish(self) -> Aggregated:
        """The mean; or, where too few hospitals were left, no change: nothing was unmasked."""
        updates, self._updates = self._updates, {}
        try:
            result = self.protocol.aggregate(
                updates,
                self._weights,
                round=self._round,
                seed=self.seed,
                drop={"masked": self._lost()},
            )
        except RoundFailed as failure:
            facts: dict[str, Any] = {"survivors": 0, "failed": str(failure)}
            return Aggregated(torch.zeros_like(self._like), (), {"secagg": facts})
        facts = {
            "survivors": len(result.survivors),
            "dropped": list(result.dropped),
            "max_error_bound": result.max_error_bound,
            "clipped_values": result.clipped_count,
            "up_bytes": dict(result.up_bytes),
            "down_bytes": dict(result.down_bytes),
        }
        mean = torch.from_numpy(result.mean.astype(np.float32)).to(self._like.device)
        return Aggregated(mean, result.survivors, {"secagg": facts})

    def _lost(self) -> set[int]:
        count = int(self.settings.drop_rate * len(self._weights))
        if not count:
            return set()
        stream = self.seed.numpy_generator("drop-outs", self._round)
        return {int(h) for h in stream.choice(sorted(self._weights), count, replace=False)}


def public_bound(weights: dict[int, int]) -> int:
    """A public bound on every hospital's number of images: the next power of two.

    The encoding's steps are as fine as this bound is close. Rounding up keeps what is public
    coarse: the sizes themselves travel inside the masked vectors.
    """
    return 1 << (max(weights.values()) - 1).bit_length()
