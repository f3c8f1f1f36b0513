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

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from repro.accounting import gaussian_epsilon, gaussian_sigma
from repro.errors import InputError
from repro.federated.features import LabelledFeatures
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.report import SharedReport, note_failure, note_release
from repro.federated.shared.sum import PrivateSum, Release, Summation
from repro.federated.shared.trainer import SharedNoiseTrainer, state_digest
from repro.federated.training.plain import HospitalData
from repro.models.whitened import WhitenedLinear
from repro.privacy.clipped_statistic import (
    SLACK,
    clipped_product_sum,
    clipped_vector_sum,
    sum_error,
    triangle_scale,
)
from repro.random import RootSeed
from repro.runs.settings import RecordPrivacy, SecAggParameters, SecondOrder, SharedNoise
from repro.secagg import RoundFailed
from repro.typing import Float

STATISTICS = 2  # rounds before the first step: mean, second moments
_LENGTH = 1.0  # what a record's vector, and its outer product, is clipped to


class SecondOrderTrainer:
    """Trains a ``WhitenedLinear`` in at least three rounds, one private sum each.

    weights: hospital -> its number of training records, public. features, classes: of the model.
    settings: ε, δ of the whole run; clip norm, learning rate and momentum of the steps, which
    take all records (``expected_batch`` is not read). second: the budget's shares.
    """

    def __init__(
        self,
        settings: RecordPrivacy,
        second: SecondOrder,
        shared: SharedNoise,
        secagg: SecAggParameters,
        weights: Mapping[int, int],
        *,
        features: int,
        classes: int,
        rounds: int,
        seed: RootSeed,
    ) -> None:
        if rounds <= STATISTICS:
            raise InputError("rounds", rounds, "at least 3: mean, second moments, and a step")
        self.second, self.shared, self.secagg, self.seed = second, shared, secagg, seed
        self.weights = dict(sorted(weights.items()))
        self.features = features
        self.sample_rate = 1.0
        # μ of the target: one release of multiplier 1/μ is exactly (ε, δ)-DP.
        self._mu = 1 / gaussian_sigma(settings.epsilon, 1.0, 1, settings.delta) * (1 - 1e-9)
        self._sums: dict[int, Summation] = {
            1: self._sum("feature mean", features, second.mean_share)
        }
        if second.moments_share > 0:  # without, the transform stays the identity
            size = features * (features + 1) // 2
            self._sums[2] = self._sum("second moments", size, second.moments_share)
        left = 1 - second.mean_share - second.moments_share
        steps = rounds - len(self._sums)
        self._steps = SharedNoiseTrainer(
            replace(
                settings,
                # The ε of the steps alone, so that their own calibration finds the multiplier.
                epsilon=gaussian_epsilon(1 / (self._mu * math.sqrt(left)), 1.0, 1, settings.delta),
                expected_batch=sum(self.weights.values()),
            ),
            shared,
            secagg,
            weights,
            dimension=features * classes,
            epochs=1,
            rounds=steps,
            seed=seed,
        )
        self.plan: NoisePlan = self._sums[1].plan  # of the last release
        self._data: dict[int, HospitalData] | None = None  # whitened; None: not yet

    def _sum(self, purpose: str, dimension: int, share: float) -> PrivateSum:
        records = sum(self.weights.values())
        plan = NoisePlan(
            hospitals=len(self.weights),
            dimension=dimension,
            sensitivity=_LENGTH * (1 + SLACK),
            noise_multiplier=1 / (self._mu * math.sqrt(share)),
            largest_sum=records * 1.01,
            colluders=self.shared.colluders,
            drop_outs=self.shared.drop_outs,
            sum_error=sum_error(records, _LENGTH),
            field_bits=self.secagg.field_bits,
        )
        return PrivateSum(plan, self.weights, seed=self.seed, purpose=purpose, secagg=self.secagg)

    @property
    def statistics_plans(self) -> tuple[NoisePlan, ...]:
        """Of the releases before the first step, a round each."""
        return tuple(one.plan for one in self._sums.values())

    @property
    def steps_plan(self) -> NoisePlan:
        """Of every step's release; all further rounds are one step each."""
        return self._steps.plan

    def train_round(
        self, model: nn.Module, hospitals: Mapping[int, HospitalData], round_number: int
    ) -> SharedReport:
        """One private sum, and what follows from it written into ``model``."""
        if not isinstance(model, WhitenedLinear):
            raise InputError("model", type(model).__name__, "one with a WhitenedLinear head")
        if round_number > len(self._sums):
            self.plan = self._steps.plan
            whitened = self._whitened(model, hospitals)
            return self._steps.train_round(model.linear, whitened, round_number, context=model)
        self._data = None
        self.plan = self._sums[round_number].plan
        report = SharedReport()
        release = self._release(model, hospitals, round_number, report)
        if release is not None:
            use = _set_mean if round_number == 1 else self._set_transform
            use(model, release, sum(self.weights[one] for one in release.survivors))
        survivors = len(release.survivors) if release is not None else 0
        report.facts.update(
            steps=1, survivors=survivors, dropped_at_most=len(self.weights) - survivors
        )
        return report

    def _release(
        self,
        model: WhitenedLinear,
        hospitals: Mapping[int, HospitalData],
        round_number: int,
        report: SharedReport,
    ) -> Release | None:
        """The noisy total of the round's statistic; None where too many hospitals were lost."""
        statistic = _sum_of_vectors if round_number == 1 else _sum_of_products
        lost = self._steps.lost(round_number, 0)
        started = time.perf_counter()
        sums = {one: statistic(model, data) for one, data in hospitals.items() if one not in lost}
        report.seconds["training"] += time.perf_counter() - started
        started = time.perf_counter()
        try:
            release = self._sums[round_number].release(
                sums, round=round_number, model=state_digest(model)
            )
        except RoundFailed as failure:  # nothing was unmasked
            note_failure(report, failure, sums, time.perf_counter() - started)
            return None
        note_release(report, release, time.perf_counter() - started)
        return release

    @torch.no_grad()
    def _set_transform(self, model: WhitenedLinear, release: Release, records: int) -> None:
        """T of the module's docstring; τ is ``floor`` times the noise matrix's spectral norm."""
        size = self.features
        upper = torch.triu_indices(size, size)
        moments = torch.zeros(size, size, dtype=torch.float64)
        moments[upper[0], upper[1]] = torch.from_numpy(release.total) / triangle_scale(upper)
        moments = torch.triu(moments) + torch.triu(moments, 1).T
        # Off the diagonal the noise has deviation s/√2, so its norm is about 2·s/√2·√size
        # (Wigner's semicircle).
        deviation = release.plan.share_deviation * math.sqrt(len(release.survivors))
        floor = self.second.floor * deviation * math.sqrt(2 * size)
        values, vectors = torch.linalg.eigh(moments)
        scaled = vectors * (values.clamp_min(floor) / floor).rsqrt()
        model.transform.copy_(scaled @ vectors.T)

    def _whitened(
        self, model: WhitenedLinear, hospitals: Mapping[int, HospitalData]
    ) -> dict[int, HospitalData]:
        """What the linear layer takes, computed once: mean and transform stay as they are."""
        if self._data is None:
            with torch.no_grad():
                self._data = {
                    one: HospitalData(
                        one,
                        LabelledFeatures(
                            model.whitened(data.train.inputs()).contiguous(), data.train.labels
                        ),
                    )
                    for one, data in hospitals.items()
                }
        return self._data

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


@torch.no_grad()
def _set_mean(model: WhitenedLinear, release: Release, records: int) -> None:
    model.mean.copy_(torch.from_numpy(release.total / records))
