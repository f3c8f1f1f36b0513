"""Private second-order training of a linear layer: mean, second moments, then few large steps.

Every round is one private sum over everybody's records (``PrivateSum``), and all that follows it
is post-processing:

1. Σ x_i, x_i features of length at most 1: the mean m.
2. Σ u_i u_iᵀ, u_i = (x_i − m)/‖x_i − m‖: the second moments M, noisy. Directions in which records
   vary more than the noise are shrunk to it, T = (max(M, τ)/τ)^{−1/2}: after that all directions
   vary about alike, and steps of one size suit them all. (Dividing by private second moments is
   Dwork, Talwar, Thakurta, Zhang 2014 and Amin et al. 2019's setting; as a preconditioner for
   private logistic regression, Ganesh et al. 2023, arXiv 2305.13209, *second-order*.)
3. Σ clip(∇_i) of W on u(T u_i), all records, no sampling: gradient steps at a fixed rate. Over a
   fixed total rate × steps, more steps add no noise at first order.

Budget: releases of Gaussian multipliers z_j compose to μ = √Σ 1/z_j² (Dong, Roth, Su 2022,
Corollary 3.3), so shares of μ² are shares of the budget, exactly.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repro.accounting import gaussian_epsilon, gaussian_sigma
from repro.errors import InputError
from repro.federated.features import LabelledFeatures
from repro.federated.protocol import Part, Place
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.rounds import SharedRounds
from repro.federated.shared.sum import PrivateSum, Summation
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.training.plain import HospitalData
from repro.federated.vector import load_vector, to_vector
from repro.models.whitened import WhitenedLinear
from repro.privacy.clipped_statistic import (
    SLACK,
    clipped_product_sum,
    clipped_vector_sum,
    sum_error,
    triangle_scale,
)
from repro.randomness import RootSeed
from repro.runs.settings import RecordPrivacy, SecAggParameters, SecondOrder, SharedNoise
from repro.shapes import Float

STATISTICS = 2  # rounds before the first step: mean, second moments
_LENGTH = 1.0  # what a record's vector, and its outer product, is clipped to


class SecondOrderTrainer(SharedRounds):
    """Trains a ``WhitenedLinear`` in at least three rounds, one private sum each.

    model: of that kind, on the device to train on. settings: ε, δ of the whole run; clip norm,
    learning rate and momentum of the steps, which take all records (``expected_batch`` is not
    read). second: the budget's shares. secagg: as in ``SharedRounds``.
    """

    mechanism = "second-order steps, shared noise"

    def __init__(
        self,
        settings: RecordPrivacy,
        second: SecondOrder,
        shared: SharedNoise,
        secagg: SecAggParameters | None,
        weights: Mapping[int, int],
        model: nn.Module,
        *,
        rounds: int,
        seed: RootSeed,
    ) -> None:
        if not isinstance(model, WhitenedLinear):
            raise InputError("model", type(model).__name__, "one with a WhitenedLinear head")
        if rounds <= STATISTICS:
            raise InputError("rounds", rounds, "at least 3: mean, second moments, and a step")
        super().__init__(shared, secagg, weights, seed)
        self.second, self.model = second, copy.deepcopy(model)
        self.features = model.linear.in_features
        # μ of the target: one release of multiplier 1/μ is exactly (ε, δ)-DP.
        self._mu = 1 / gaussian_sigma(settings.epsilon, 1.0, 1, settings.delta) * (1 - 1e-9)
        self._sums: dict[int, Summation] = {
            1: self._sum("feature mean", self.features, second.mean_share)
        }
        if second.moments_share > 0:  # without, the transform stays the identity
            moments = self.features * (self.features + 1) // 2
            self._sums[2] = self._sum("second moments", moments, second.moments_share)
        left = 1 - second.mean_share - second.moments_share
        self._steps = SharedNoiseTrainer(
            replace(
                settings,
                # The ε of the steps alone, so that their own calibration finds the multiplier.
                epsilon=gaussian_epsilon(1 / (self._mu * math.sqrt(left)), 1.0, 1, settings.delta),
                expected_batch=self.records(self.weights),
            ),
            shared,
            secagg,
            weights,
            model.linear,
            epochs=1,
            rounds=rounds - len(self._sums),
            seed=seed,
        )
        self._data: dict[int, HospitalData] = {}  # whitened; empty: not yet

    def _sum(self, purpose: str, dimension: int, share: float) -> PrivateSum:
        records = self.records(self.weights)
        plan = self.planned(
            dimension=dimension,
            sensitivity=_LENGTH * (1 + SLACK),
            noise_multiplier=1 / (self._mu * math.sqrt(share)),
            largest_sum=records * 1.01,
            sum_error=sum_error(records, _LENGTH),
        )
        return PrivateSum(plan, self.weights, seed=self.seed, purpose=purpose, secagg=self.secagg)

    def exchanges(self, round: int) -> int:
        return 1 if round in self._sums else self._steps.exchanges(round)

    @property
    def statistics_plans(self) -> tuple[NoisePlan, ...]:
        """Of the releases before the first step, a round each."""
        return tuple(one.plan for one in self._sums.values())

    @property
    def steps_plan(self) -> NoisePlan:
        """Of every step's release; all further rounds are one step each."""
        return self._steps.plan

    def sum_in(self, round: int) -> Summation:
        return self._sums.get(round, self._steps.sum)

    def part(self, vector: Tensor, data: HospitalData, at: Place) -> Part:
        """The hospital's sum of features, of their products, or of clipped gradients."""
        if at.round not in self._sums:
            return self._steps.part(self._weights(vector), self._whitened(vector, data), at)
        self._data.clear()
        return self.share(data.hospital, self.statistic(vector, data, at.round), {}, at)

    def statistic(
        self, vector: Tensor, data: HospitalData, round: int
    ) -> Float[np.ndarray, " size"]:
        """A hospital's sum in round 1 or 2; no noise in it yet."""
        load_vector(self.model, vector)
        return (_sum_of_vectors if round == 1 else _sum_of_products)(self.model, data)

    @torch.no_grad()
    def apply(self, vector: Tensor, total: Tensor, survivors: Sequence[int], at: Place) -> Tensor:
        """Mean, transform, or a step of the linear layer."""
        if at.round not in self._sums:
            weights = self._weights(vector)
            stepped = self._steps.apply(weights, total, survivors, at)
            return torch.cat([stepped, vector[len(weights) :]])
        load_vector(self.model, vector)
        if at.round == 1:
            self.model.mean.copy_(total / self.records(survivors))
        else:
            self._set_transform(total, len(survivors))
        return to_vector(self.model)

    def _set_transform(self, total: Tensor, survivors: int) -> None:
        """T of the module's docstring; τ is ``floor`` times the noise matrix's spectral norm."""
        size = self.features
        upper = torch.triu_indices(size, size)
        moments = torch.zeros(size, size, dtype=torch.float64)
        moments[upper[0], upper[1]] = total / triangle_scale(upper)
        moments = torch.triu(moments) + torch.triu(moments, 1).T
        # Off the diagonal the noise has deviation s/√2, so its norm is about 2·s/√2·√size
        # (Wigner's semicircle).
        deviation = self._sums[2].plan.share_deviation * math.sqrt(survivors)
        floor = self.second.floor * deviation * math.sqrt(2 * size)
        values, vectors = torch.linalg.eigh(moments)
        scaled = vectors * (values.clamp_min(floor) / floor).rsqrt()
        self.model.transform.copy_(scaled @ vectors.T)

    def _weights(self, vector: Tensor) -> Tensor:
        """The linear layer's part of a vector: parameters come first, and it has all there are."""
        return vector[: self.model.linear.weight.numel()]

    @torch.no_grad()
    def _whitened(self, vector: Tensor, data: HospitalData) -> HospitalData:
        """What the linear layer takes, computed once: mean and transform stay as they are."""
        if data.hospital not in self._data:
            load_vector(self.model, vector)
            features = self.model.whitened(data.train.inputs()).contiguous()
            self._data[data.hospital] = HospitalData(
                data.hospital, LabelledFeatures(features, data.train.labels)
            )
        return self._data[data.hospital]

    def _facts(self, round: int, releases: Iterable[tuple[int, ...]]) -> dict[str, Any]:
        if round not in self._sums:
            return self._steps._facts(round, releases)
        return super()._facts(round, releases)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._steps.load_state_dict(state["steps"])


@torch.no_grad()
def _sum_of_vectors(model: WhitenedLinear, data: HospitalData) -> Float[np.ndarray, " size"]:
    """Σ clip(x_i); (F,) float64."""
    result: Float[np.ndarray, " size"] = (
        clipped_vector_sum(data.train.inputs(), _LENGTH).cpu().numpy()
    )
    return result


@torch.no_grad()
def _sum_of_products(model: WhitenedLinear, data: HospitalData) -> Float[np.ndarray, " size"]:
    """Σ u_i u_iᵀ: the upper triangle, (F(F+1)/2,) float64. That u has length 1 is the model's
    wish; that it has no more is made sure of in the sum."""
    vectors = model.centred(data.train.inputs().double())
    return clipped_product_sum(vectors, _LENGTH).cpu().numpy()
