"""Audited runs of second-order arms: feature mean, second moments, gradient steps.

One trial is the whole composition: the statistics through ``SecondOrderTrainer.run_round``, then
every step's release, all as the planned coalition sees them. The attacker knows all records but
whether the canary is among them, and all that was released before; so it knows what the canary
would add to each release (computed here from the formulas, not by the trainer's code), and the sum
of the log likelihood ratios is exactly that of a Gaussian mechanism with the composed μ.

Weights do not move in the steps, so their clipped sum is computed once a trial, by the function
that the trainer's own step calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from repro.audit.canaries import LENGTH, Trial, log_likelihood_ratio
from repro.audit.claim import AuditedClaim, Sharing
from repro.audit.coalition import Coalition, CoalitionSum
from repro.audit.controls import Actual
from repro.audit.shared_noise import still, watch
from repro.federated.features import LabelledFeatures
from repro.federated.protocol import Place
from repro.federated.shared.second_order import STATISTICS, SecondOrderTrainer
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.training.plain import HospitalData
from repro.federated.vector import load_vector, to_vector
from repro.models.whitened import WhitenedLinear
from repro.randomness import RootSeed
from repro.shapes import Float

FEATURES, CLASSES = 8, 8  # of the model of the many runs
_OTHERS = 3  # records beside the canary

Rows = Float[np.ndarray, "records features"]
Parts = Float[np.ndarray, "records size"]  # what each record adds to a release


class WatchedSecondOrder(SecondOrderTrainer):
    """The arm's trainer, every release of it seen by the planned coalition.

    features, classes: of the audited model; multipliers are the arm's own whatever these are.
    """

    def __init__(
        self,
        claim: AuditedClaim,
        sharing: Sharing,
        actual: Actual,
        *,
        features: int,
        classes: int,
        seed: RootSeed,
    ) -> None:
        assert sharing.second is not None
        super().__init__(
            still(sharing.record),
            sharing.second,
            sharing.noise,
            sharing.secagg,
            sharing.weights,
            WhitenedLinear(features, classes),
            rounds=claim.rounds + STATISTICS,
            seed=seed,
        )
        self._actual, self._rounds = actual, claim.rounds
        self.coalition = Coalition.planned(claim, sharing)
        self._watched_steps = watch(self._steps, claim, sharing, actual)
        self._watched = {
            number: CoalitionSum(
                stated,
                self.coalition,
                seed=seed,
                secagg=None,
                noise_part=actual.noise / claim.noise_multiplier,
            )
            for number, stated in self._sums.items()
        }
        self._sums = dict(self._watched)

    @property
    def steps(self) -> tuple[SharedNoiseTrainer, CoalitionSum]:
        """The trainer of the steps alone, and its sum as it is seen."""
        return self._steps, self._watched_steps

    def restart(self, seed: RootSeed) -> None:
        """Another run, of which nothing was seen yet."""
        self.seed = self._steps.seed = seed
        self._watched = {number: one.again(seed) for number, one in self._watched.items()}
        self._sums = dict(self._watched)
        self._steps.sum = self._watched_steps = self._watched_steps.again(seed)

    def seen(self, round_number: int) -> Float[np.ndarray, " size"]:
        """What the coalition saw of a statistic, or of a step."""
        if round_number <= STATISTICS:
            return self._watched[round_number].seen[0]
        return self._watched_steps.seen[round_number - STATISTICS - 1]

    def release_steps(
        self, vector: Tensor, hospitals: Mapping[int, HospitalData], hospital: int
    ) -> None:
        """All steps at the model's weights; only ``hospital`` has records."""
        mine = self._whitened(vector, hospitals[hospital])
        self._steps._load(self._weights(vector))
        first = STATISTICS + 1
        clipped = self._steps.clipped(mine, Place(first)).total.numpy()
        sums = dict.fromkeys(self.coalition.survivors, np.zeros_like(clipped))
        sums[hospital] = clipped
        for round_number in range(first, first + self._rounds):
            self._watched_steps.release(sums, round=round_number)

    def statistic(
        self, vector: Tensor, data: HospitalData, round: int
    ) -> Float[np.ndarray, " size"]:
        if self._actual.clip == 1:
            return super().statistic(vector, data, round)
        # The control: nothing is scaled to length 1.
        load_vector(self.model, vector)
        records = data.train.inputs().double().numpy()
        parts = records if round == 1 else _product(records - self.model.mean.double().numpy())
        return parts.sum(axis=0)


def second_order_trial(claim: AuditedClaim, sharing: Sharing, actual: Actual) -> Trial:
    """The log likelihood ratio of a whole run, with and without the canary."""
    trainer = WatchedSecondOrder(
        claim, sharing, actual, features=FEATURES, classes=CLASSES, seed=RootSeed.from_user(0)
    )
    others, labels = _ordinary_records()
    canary = np.zeros((1, FEATURES))
    canary[0, 0] = LENGTH
    hospitals = {
        True: _held(trainer, claim, np.vstack([others, canary]), np.append(labels, 0)),
        False: _held(trainer, claim, others, labels),
    }
    multipliers = (*sharing.statistics, *[claim.noise_multiplier] * claim.rounds)

    def run(seed: RootSeed, present: bool) -> float:
        trainer.restart(seed)
        model = WhitenedLinear(FEATURES, CLASSES)
        vector = to_vector(model)
        held, score = hospitals[present], 0.0
        adds = _mean_parts(others), _mean_parts(canary)
        for number, multiplier in enumerate(multipliers, start=1):
            if number <= STATISTICS:
                vector, _ = trainer.run_round(vector, held, number)
                load_vector(model, vector)
            elif number == STATISTICS + 1:
                trainer.release_steps(vector, held, claim.hospital)
            score += _evidence(trainer.seen(number), *adds, multiplier)
            mean = model.mean.double().numpy()
            if number == 1:
                adds = _moment_parts(others, mean), _moment_parts(canary, mean)
            elif number == STATISTICS:
                known = mean, model.transform.double().numpy(), claim.clip_norm
                adds = (
                    _gradient_parts(others, labels, *known),
                    _gradient_parts(canary, np.zeros(1, dtype=np.int64), *known),
                )
        return score

    return run


def _ordinary_records() -> tuple[Rows, np.ndarray]:
    stream = RootSeed.from_user(0).numpy_generator("audit records")
    return 0.4 * stream.standard_normal((_OTHERS, FEATURES)), stream.integers(0, CLASSES, _OTHERS)


def _held(
    trainer: WatchedSecondOrder, claim: AuditedClaim, features: np.ndarray, labels: np.ndarray
) -> dict[int, HospitalData]:
    """All records at the claim's hospital; the other survivors have none."""
    none = LabelledFeatures.of(features[:0], labels[:0], "cpu")
    made = {one: HospitalData(one, none) for one in trainer.coalition.survivors}
    return made | {
        claim.hospital: HospitalData(claim.hospital, LabelledFeatures.of(features, labels, "cpu"))
    }


def _evidence(
    seen: Float[np.ndarray, " size"],
    others: Parts,
    canary: Float[np.ndarray, "1 size"],
    multiplier: float,
) -> float:
    """log p(seen | canary) − log p(seen | none) of one release, from what everybody adds to it."""
    direction = canary[0]
    length = float(np.linalg.norm(direction))  # the sensitivity: the canary saturates it
    trace = (seen - others.sum(axis=0)) @ direction / length**2
    return float(log_likelihood_ratio(np.asarray(trace), multiplier, 1.0))


def _product(records: Rows) -> Parts:
    """v vᵀ of every row, the upper triangle, √2 times what lies off the diagonal."""
    row, column = np.triu_indices(records.shape[1])
    weights = np.where(row == column, 1, math.sqrt(2))
    return records[:, row] * records[:, column] * weights


def _shortened(rows: Parts, length: float) -> Parts:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * np.minimum(1, length / np.maximum(norms, 1e-300))


def _mean_parts(records: Rows) -> Parts:
    """What each record adds to Σ x."""
    return _shortened(records, 1.0)


def _moment_parts(records: Rows, mean: np.ndarray) -> Parts:
    """What each record adds to Σ u uᵀ."""
    return _product(_unit(records - mean))


def _gradient_parts(
    records: Rows, labels: np.ndarray, mean: np.ndarray, transform: np.ndarray, clip_norm: float
) -> Parts:
    """What each record adds to a step at weights 0: (p − e_label) wᵀ, clipped; p = 1/classes."""
    whitened = _unit(_unit(records - mean) @ transform.T)
    errors = np.full((len(records), CLASSES), 1 / CLASSES)
    errors[np.arange(len(records)), labels] -= 1
    gradients = errors[:, :, None] * whitened[:, None, :]
    return _shortened(gradients.reshape(len(records), -1), clip_norm)


def _unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
