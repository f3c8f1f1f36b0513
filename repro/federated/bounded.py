"""FedAvg's mean where every hospital proves that its update is no longer than a public norm.

The rounds are ``repro.secagg.bounded``'s. With all parties in this process here, for the ablation
``hostile``; with the parties apart: ``repro.federated.deploy``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import InputError
from repro.federated.aggregation import Aggregated
from repro.federated.parallel.ranks import Ranks
from repro.federated.robust import turning_round
from repro.runs.settings import Robustness, SecAggParameters
from repro.secagg import Party, RoundFailed, model_digest, settings_digest
from repro.secagg.bounded import (
    BoundedHospital,
    BoundedRound,
    Circuit,
    NormBound,
    run_bounded_round,
)
from repro.secagg.bounded.bound import FIELD, P
from repro.shapes import Float

_UNITS = 1e6  # of the norm; rounding moves an update of it by less than √P/2 of them


class ProvedUpdates:
    """Updates as the integers whose norm is proved, and their sum as the weighted mean.

    norm: what every hospital cuts its update to. weights: hospital -> its training images, public:
    a hospital's summand is its update times its share of the largest weight, so the bound is that
    of the largest hospital.
    """

    def __init__(self, norm: float, weights: Mapping[int, int]) -> None:
        self.norm, self.weights, self.largest = norm, weights, max(weights.values())

    def bound(self, length: int) -> NormBound:
        """In units; rounding each of ``length`` values may make a vector longer by √length/2."""
        return NormBound(_UNITS + math.sqrt(length) / 2, len(self.weights))

    def cut(self, update: Float[Tensor, " size"]) -> np.ndarray:
        """(size,) float64, no longer than the norm."""
        own = update.cpu().numpy().astype(np.float64)
        length = float(np.linalg.norm(own))
        return own * min(1.0, self.norm / length) if length else own

    def units(self, hospital: int, update: np.ndarray) -> np.ndarray:
        """(size,) float64: the weighted update in units."""
        return update * (self.weights[hospital] / self.largest * _UNITS / self.norm)

    def summand(self, hospital: int, update: Float[Tensor, " size"]) -> np.ndarray:
        """(size,) int64: an honest hospital's vector."""
        return _whole(self.units(hospital, self.cut(update)))

    def mean(self, total: np.ndarray, accepted: Collection[int]) -> Float[Tensor, " size"]:
        """Of the accepted hospitals' updates."""
        return torch.from_numpy((total * self.unit(accepted)).astype(np.float32))

    def unit(self, accepted: Collection[int]) -> float:
        """Of the sum, in the mean."""
        total = sum(self.weights[one] for one in accepted)
        return self.norm * self.largest / _UNITS / total


class BoundedAggregation:
    """The weighted mean of the updates whose norm was proved; who proves none is left out.

    Honest hospitals cut their updates to ``settings.norm`` first. The first ``settings.hostile``
    hospitals lie, by the largest vector, by the sum turned round, or within the bound, and prove
    what they can.
    """

    def __init__(
        self,
        settings: Robustness,
        secagg: SecAggParameters,
        weights: dict[int, int],
        ranks: Ranks,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        if ranks.size > 1:
            raise InputError("ranks", ranks.size, "1: bounded sums are taken in one process")
        if secagg.drop_rate:
            raise InputError("drop_rate", secagg.drop_rate, "0 where updates are bounded")
        assert settings.norm is not None, "without a norm sums are GroupedAggregation's"
        self.settings, self.weights = settings, weights
        self._proved = ProvedUpdates(settings.norm, weights)
        self._party = Party(weights)
        self._training = settings_digest(dict(training or {}))
        self._number = 0

    def start(self, round_number: int, weights: dict[int, int], like: Tensor) -> None:
        self._number += 1
        self._like = like
        self._updates: dict[int, np.ndarray] = {}
        self._round = BoundedRound(
            directory=self._party.directory,
            session=self._party.session,
            number=self._number,
            bound=self._proved.bound(like.numel()),
            length=like.numel(),
            model=model_digest(like.detach().cpu().numpy()),
            training=self._training,
        )

    def add(self, hospital: int, update: Float[Tensor, " size"]) -> None:
        self._updates[hospital] = self._proved.cut(update)

    def finish(self) -> Aggregated:
        liars: dict[int, type[BoundedHospital]]
        liars = {one: Liar for one in self._updates if self._lies(one)}
        try:
            done = run_bounded_round(self._party, self._round, self._summand, hospitals=liars)
        except RoundFailed as failure:
            facts: dict[str, Any] = {"survivors": 0, "failed": str(failure)}
            return Aggregated(torch.zeros_like(self._like), (), {"secagg": facts})
        mean, costs = self._proved.mean(done.total, done.accepted), done.costs
        facts = {
            "survivors": len(done.accepted),
            "excluded": {str(one): why for one, why in done.excluded.items()},
            "max_error_bound": self._proved.unit(done.accepted) * len(done.accepted),
            "clipped_values": 0,
            "up_bytes": {"masked": sum(costs.up_bytes.values())},
            "down_bytes": {"masked": sum(costs.down_bytes.values())},
        }
        return Aggregated(mean.to(self._like.device), done.accepted, {"secagg": facts})

    def _lies(self, hospital: int) -> bool:
        return hospital < self.settings.hostile

    def _summand(self, hospital: int) -> np.ndarray:
        """(P,) int64: the weighted update, or the lie, in units."""
        summand = self._proved.units(hospital, self._updates[hospital])
        if self._lies(hospital):
            if self.settings.lie == "largest":
                summand = np.sign(summand) * -(P // 2)
            elif self.settings.lie == "within":
                summand *= -_UNITS / np.linalg.norm(summand)
            else:
                summand *= turning_round(self.weights, hospital)
        return _whole(summand)


def _whole(units: np.ndarray) -> np.ndarray:
    whole: np.ndarray = np.rint(units).astype(np.int64)
    return whole


class Liar(BoundedHospital):
    """Sends what it likes, and proves what comes of it as if it were within the bound."""

    def _checked(self, vector: np.ndarray) -> np.ndarray:
        elements: np.ndarray = np.mod(vector, P).astype(FIELD.dtype)
        return elements

    def _provable(self, circuit: Circuit, projections: np.ndarray) -> bool:
        return True
