"""DP-SGD by all hospitals together: at every step one private sum over everybody's records.

One public sample rate q for all. At every step each hospital draws its own Poisson batch of its
own records, clips, adds its share of the noise, and the secure sum's decoded total, divided by
the public expected batch q · (records of the hospitals in it), is the step of any optimizer at the
public model: central DP-SGD on all records, which no single party could see. (DeCaPH, Fang et al.
2024, arXiv 2402.00205, does so with continuous noise; Dopamine, Malekzadeh et al. 2021, arXiv
2101.11693, with one step a round.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repro.accounting import calibrate_noise_multiplier, gaussian_sigma
from repro.federated.protocol import Part, Place
from repro.federated.shared.rounds import SharedRounds
from repro.federated.shared.sum import PrivateSum, Summation
from repro.federated.training.plain import HospitalData, cross_entropy
from repro.federated.vector import load_vector, to_vector
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ClippedSum
from repro.privacy.private_step import Draws, step_with
from repro.privacy.sampling import PoissonSampler
from repro.privacy.step import clipped_sum
from repro.randomness import RootSeed
from repro.runs.settings import RecordPrivacy, SecAggParameters, SharedNoise

_CHUNK = 64  # records in one engine call: bounds the rounding of a single-precision sum


class SharedNoiseTrainer(SharedRounds):
    """A round of steps. The optimizer goes on from round to round.

    model: what is trained, on the device to train on; its P trainable parameters are all of a
    vector. epochs: expected passes over everybody's records a round (public), rounds: of the whole
    run; the noise is calibrated to ε over all of them, against the planned coalition. secagg: as
    in ``SharedRounds``.
    """

    mechanism = "dp-sgd, shared noise"

    def __init__(
        self,
        settings: RecordPrivacy,
        shared: SharedNoise,
        secagg: SecAggParameters | None,
        weights: Mapping[int, int],
        model: nn.Module,
        *,
        epochs: int | float,
        rounds: int,
        seed: RootSeed,
    ) -> None:
        super().__init__(shared, secagg, weights, seed)
        self.settings = settings
        records = self.records(self.weights)
        rate = min(1.0, settings.expected_batch / records)
        self.steps = max(1, round(epochs / rate))
        multiplier = planned_multiplier(settings, rate, self.steps * rounds)
        largest = max(self.weights.values())
        self.plan = self.planned(
            dimension=sum(p.numel() for p in model.parameters()),
            sensitivity=settings.clip_norm * (1 + self._clip_tolerance),
            noise_multiplier=multiplier * (1 + 1e-12),  # so that rounding stays within ε
            largest_sum=settings.clip_norm * records * 1.01,
            sum_error=settings.clip_norm * self._sum_error(largest),
            sample_rate=rate,
        )
        self.sum: Summation = PrivateSum(
            self.plan, self.weights, seed=seed, purpose="gradient", secagg=secagg
        )
        self.train_on(model)

    def train_on(self, model: nn.Module) -> None:
        """Take a copy of ``model``, in the precision of training, as what vectors are loaded into.

        One object for the whole run: what is found out about a model's engine is remembered
        with it, and the optimizer goes on with its parameters.
        """
        self.model = copy.deepcopy(model).train()
        if self.shared.precision == "double":
            self.model.double()
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = self._new_optimizer()
        self._loaded: Tensor | None = None  # which vector the model holds

    @property
    def _clip_tolerance(self) -> float:
        """How far above the clip norm a record may end by rounding, relatively."""
        return 1e-12 if self.shared.precision == "double" else 1e-5

    def _sum_error(self, records: int) -> float:
        """L2 error of a floating-point sum of at most ``records`` vectors of norm 1.

        A sum in which every addend passes k additions is off by at most k·u·Σ|addends| in every
        coordinate (Higham 2002, section 4.2), hence by k·u·n in L2.
        """
        if self.shared.precision == "double":
            return records * records * 2.0**-53
        return (_CHUNK + records / _CHUNK) * records * 2.0**-24

    def exchanges(self, round: int) -> int:
        return self.steps

    def sum_in(self, round: int) -> Summation:
        return self.sum

    def part(self, vector: Tensor, data: HospitalData, at: Place) -> Part:
        """The sum of clipped gradients over the hospital's Poisson batch."""
        self._load(vector)
        summed = self.clipped(data, at)
        noted = {
            "gradients": summed.records,
            "gradients_clipped": summed.clipped,
            "gradients_non_finite": summed.non_finite,
        }
        return self.share(data.hospital, summed.total.cpu().numpy(), noted, at)

    def apply(self, vector: Tensor, total: Tensor, survivors: Sequence[int], at: Place) -> Tensor:
        """A step of the optimizer: everything after the noisy total is post-processing."""
        self._load(vector)
        # Public constants: the drawn sizes would leak, and sizes and survivors are known.
        mean = total / (self.plan.sample_rate * self.records(survivors))
        pieces = mean.split([p.numel() for p in self._parameters])
        step_with(self._optimizer, self._parameters, pieces)
        self._loaded = to_vector(self.model)
        return self._loaded

    def _load(self, vector: Tensor) -> None:
        if vector is not self._loaded:
            load_vector(self.model, vector)
            self._loaded = vector

    def clipped(self, data: HospitalData, at: Place) -> ClippedSum:
        """At the model as it is loaded; no noise in it yet."""
        dtype, device = self._parameters[0].dtype, data.train.labels.device

        def fetch(drawn: Tensor) -> tuple[Tensor, Tensor]:
            drawn = drawn.to(device)
            return data.train.inputs(drawn).to(dtype), data.train.labels[drawn]

        sampler = PoissonSampler(len(data.train), self.plan.sample_rate)
        draws = Draws(self.seed, "shared dp-sgd", data.hospital, at.round)
        with draws.batch(sampler, fetch, at.step) as (inputs, targets):
            summed, _ = clipped_sum(
                self.model,
                cross_entropy,
                inputs,
                targets,
                clipping=Clipping(self.settings.clip_norm, self.settings.clipping),
                engine=self.settings.engine,
                chunk_size=_CHUNK,
            )
        return summed

    def _new_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        if settings.optimizer == "adam":
            return torch.optim.Adam(self._parameters, lr=settings.learning_rate)
        return torch.optim.SGD(
            self._parameters, lr=settings.learning_rate, momentum=settings.momentum
        )

    def _facts(self, round: int, releases: Iterable[tuple[int, ...]]) -> dict[str, Any]:
        return {"plan": self.plan.facts(), **super()._facts(round, releases)}

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["optimizer"] is not None:  # as states were written before the first round
            self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))


def planned_multiplier(settings: RecordPrivacy, sample_rate: float, steps: int) -> float:
    """The least noise over sensitivity that keeps ``steps`` sums within (ε, δ)."""
    if sample_rate == 1:  # no sampling: exactly the Gaussian mechanism
        return gaussian_sigma(settings.epsilon, 1.0, steps, settings.delta)
    multiplier, _ = calibrate_noise_multiplier(settings.epsilon, settings.delta, sample_rate, steps)
    return multiplier
