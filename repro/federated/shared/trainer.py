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
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.accounting import calibrate_noise_multiplier, gaussian_sigma
from repro.checks import check_count
from repro.errors import InputError
from repro.federated.shared.noise_plan import NoisePlan
from repro.federated.shared.report import SharedReport, note_failure, note_release
from repro.federated.shared.sum import PrivateSum, Release, Summation
from repro.federated.training.plain import HospitalData
from repro.federated.vector import to_vector
from repro.privacy.clipping import Clipping
from repro.privacy.sampling import PoissonSampler
from repro.privacy.step import clipped_sum
from repro.random import RootSeed
from repro.runs.settings import RecordPrivacy, SecAggParameters, SharedNoise
from repro.secagg import RoundFailed, model_digest
from repro.typing import Float

_CHUNK = 64  # records in one engine call: bounds the rounding of a single-precision sum


class SharedNoiseTrainer:
    """Trains the public model for a round of steps. The optimizer goes on from round to round.

    weights: hospital -> its number of training records, public. dimension: P, the model's size.
    epochs: expected passes over everybody's records a round (public), rounds: of the whole run;
    the noise is calibrated to ε over all of them, against the planned coalition. secagg: None for
    one hospital alone, which adds all of the noise.
    """

    def __init__(
        self,
        settings: RecordPrivacy,
        shared: SharedNoise,
        secagg: SecAggParameters | None,
        weights: Mapping[int, int],
        *,
        dimension: int,
        epochs: int | float,
        rounds: int,
        seed: RootSeed,
    ) -> None:
        if shared.precision not in ("single", "double"):
            raise InputError("precision", shared.precision, "single or double")
        check_count("protocol_every", shared.protocol_every)
        self.settings, self.shared, self.seed = settings, shared, seed
        self.weights = dict(sorted(weights.items()))
        self.drop_rate = secagg.drop_rate if secagg else 0.0
        records = sum(self.weights.values())
        self.sample_rate = min(1.0, settings.expected_batch / records)
        self.steps = max(1, round(epochs / self.sample_rate))
        multiplier = planned_multiplier(settings, self.sample_rate, self.steps * rounds)
        largest = max(self.weights.values())
        self.plan = NoisePlan(
            hospitals=len(self.weights),
            dimension=dimension,
            sensitivity=settings.clip_norm * (1 + self._clip_tolerance),
            noise_multiplier=multiplier * (1 + 1e-12),  # so that rounding stays within ε
            largest_sum=settings.clip_norm * records * 1.01,
            colluders=shared.colluders,
            drop_outs=shared.drop_outs,
            sum_error=settings.clip_norm * self._sum_error(largest),
            field_bits=secagg.field_bits if secagg else SecAggParameters.field_bits,
        )
        self.sum: Summation = PrivateSum(
            self.plan, self.weights, seed=seed, purpose="gradient", secagg=secagg
        )
        self._optimizer_state: dict[str, Any] | None = None
        self._working: nn.Module | None = None  # None: no round yet
        self._context = b""  # digest of what the model is part of, as the round began

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

    def train_round(
        self,
        model: nn.Module,
        hospitals: Mapping[int, HospitalData],
        round_number: int,
        *,
        context: nn.Module | None = None,
    ) -> SharedReport:
        """``steps`` steps on ``model``, in place. hospitals: all of them.

        context: what ``model`` is part of, where the hospitals' data depend on the rest of it
            too: bound into every sum with the model.
        """
        self._context = b"" if context is None else state_digest(context)
        report = SharedReport()
        working = self._working_copy(model)
        parameters = [p for p in working.parameters() if p.requires_grad]
        optimizer = self._optimizer(parameters)
        for step in range(self.steps):
            self._step(working, parameters, optimizer, hospitals, round_number, step, report)
        self._optimizer_state = optimizer.state_dict()
        with torch.no_grad():
            for mine, trained in zip(model.parameters(), working.parameters(), strict=True):
                mine.copy_(trained)
        self._finish(report)
        return report

    def _working_copy(self, model: nn.Module) -> nn.Module:
        """``model`` as it is now, in the precision of training: what the steps change.

        One object for the whole run: what is found out about a model's engine is remembered
        with it.
        """
        if self._working is None:
            self._working = copy.deepcopy(model)
            if self.shared.precision == "double":
                self._working.double()
        self._working.load_state_dict(model.state_dict())
        return self._working.train()

    def _step(
        self,
        model: nn.Module,
        parameters: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        hospitals: Mapping[int, HospitalData],
        round_number: int,
        step: int,
        report: SharedReport,
    ) -> None:
        """One private sum and the step that follows; none where too many were lost."""
        started = time.perf_counter()
        lost = self.lost(round_number, step)
        sums = {
            one: self._clipped(model, data, round_number, step, report)
            for one, data in hospitals.items()
            if one not in lost
        }
        report.seconds["training"] += time.perf_counter() - started
        started = time.perf_counter()
        protocol = step % self.shared.protocol_every == 0
        try:
            release = self.sum.release(
                sums,
                round=round_number,
                step=step,
                protocol=protocol,
                model=state_digest(model, self._context),
            )
        except RoundFailed as failure:  # nothing was unmasked; no step
            note_failure(report, failure, sums, time.perf_counter() - started)
            return
        note_release(report, release, time.perf_counter() - started)
        self._apply(release, parameters, optimizer)

    def _clipped(
        self,
        model: nn.Module,
        data: HospitalData,
        round_number: int,
        step: int,
        report: SharedReport,
    ) -> Float[np.ndarray, " size"]:
        """One hospital's sum of clipped gradients over its Poisson batch; no noise in it yet."""
        sampler = PoissonSampler(len(data.train), self.sample_rate)
        drawn = sampler.sample(self.seed, hospital=data.hospital, round=round_number, step=step)
        drawn = drawn.to(data.train.labels.device)
        inputs, targets = data.train.inputs(drawn), data.train.labels[drawn]
        dtype = next(model.parameters()).dtype
        with torch.random.fork_rng():
            key = self.seed.derive("shared dp-sgd layers", data.hospital, round_number, step)
            torch.manual_seed(key >> 1)  # dropout masks
            summed, _ = clipped_sum(
                model,
                cross_entropy,
                inputs.to(dtype),
                targets,
                clipping=Clipping(self.settings.clip_norm, self.settings.clipping),
                engine=self.settings.engine,
                chunk_size=_CHUNK,
            )
        report.diagnostics.update(
            gradients=summed.records,
            gradients_clipped=summed.clipped,
            gradients_non_finite=summed.non_finite,
        )
        return summed.total.cpu().numpy()

    def _apply(
        self, release: Release, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Everything after the noisy total is post-processing."""
        # Public constants: the drawn sizes would leak, and sizes and survivors are known.
        expected = self.sample_rate * sum(self.weights[one] for one in release.survivors)
        mean = torch.from_numpy(release.total / expected)
        for parameter, piece in zip(
            parameters, mean.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = piece.view(parameter.shape).to(parameter.device, parameter.dtype)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def lost(self, round_number: int, step: int) -> set[int]:
        """The hospitals that a step loses, drawn by the run's seed (``drop_rate``)."""
        count = int(self.drop_rate * len(self.weights))
        if not count:
            return set()
        stream = self.seed.numpy_generator("drop-outs", round_number, step)
        return {int(h) for h in stream.choice(list(self.weights), count, replace=False)}

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        settings = self.settings
        rate = settings.learning_rate
        optimizer: torch.optim.Optimizer
        if settings.optimizer == "adam":
            optimizer = torch.optim.Adam(parameters, lr=rate)
        elif settings.optimizer == "sgd":
            optimizer = torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum)
        else:
            raise InputError("optimizer", settings.optimizer, "sgd or adam")
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        return optimizer

    def _finish(self, report: SharedReport) -> None:
        """The round's facts: who was in how many sums, what they took."""
        least = min((len(s) for s in report.releases), default=0)
        report.facts.update(
            plan=self.plan.facts(),
            steps=self.steps,
            survivors=least,
            dropped_at_most=len(self.weights) - least,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer_state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer_state = state["optimizer"]


def state_digest(model: nn.Module, context: bytes = b"") -> bytes:
    """What a sum is bound to: the model it is computed at, and ``context``; 32 bytes."""
    own = model_digest(to_vector(model).cpu().numpy())
    return hashlib.sha256(own + context).digest() if context else own


def planned_multiplier(settings: RecordPrivacy, sample_rate: float, steps: int) -> float:
    """The least noise over sensitivity that keeps ``steps`` sums within (ε, δ)."""
    if sample_rate == 1:  # no sampling: exactly the Gaussian mechanism
        return gaussian_sigma(settings.epsilon, 1.0, steps, settings.delta)
    multiplier, _ = calibrate_noise_multiplier(
        settings.epsilon, settings.delta, sample_rate, steps, accountant="best"
    )
    return multiplier


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss a record, (B,), nats.

    targets: (B,) classes; or (B, L) of 0 and 1, where a record may have any of L labels: then the
    sum over labels of each one's against the rest (logistic regression for each label). What one
    record adds to a sum of gradients is clipped as a whole either way, so which loss it is changes
    nothing of what a release costs.
    """
    if targets.ndim == outputs.ndim:
        return F.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), reduction="none"
        ).sum(-1)
    return F.cross_entropy(outputs, targets, reduction="none")
