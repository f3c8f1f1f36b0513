"""Audited runs of arms whose noise is shared inside the secure sum (``repro.federated.shared``).

Many runs: full-batch steps, the clipped sum of the trainer's own path (``clipped_sum``) handed to
``PrivateSum.release`` under the plan of the arm's trainer. Weights do not move, so the clipped sum
is the same at every step and computed once; all that is random is redone. Of the protocol only its
sum is run there, with the same bits (``protocol_every`` does so too).

One run: ``SharedNoiseTrainer.run_round`` itself over the arm's whole schedule, the protocol at
every step that the arm's settings run it at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from repro.audit.canaries import (
    SIZE,
    CanaryScore,
    OneCanary,
    OrthogonalCanaries,
    Trial,
    linear_model,
    record_loss,
)
from repro.audit.claim import AuditedClaim, Sharing
from repro.audit.coalition import Coalition, CoalitionSum
from repro.audit.controls import Actual
from repro.federated.features import LabelledFeatures
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.training.plain import HospitalData
from repro.federated.vector import to_vector
from repro.privacy.clipping import Clipping
from repro.privacy.step import clipped_sum
from repro.randomness import RootSeed
from repro.runs.settings import RecordPrivacy

_STILL = 1e-12  # learning rate at which the model stays where it is, for all that is seen


def still(record: RecordPrivacy) -> RecordPrivacy:
    """The arm's privacy, with steps so small that gradients stay those of the first model.

    What is done with a release is post-processing: nothing stated depends on it.
    """
    return replace(record, optimizer="sgd", momentum=0.0, learning_rate=_STILL)


def watched_trainer(
    claim: AuditedClaim, sharing: Sharing, actual: Actual, *, model: nn.Module, seed: RootSeed
) -> tuple[SharedNoiseTrainer, CoalitionSum]:
    """The arm's trainer for ``model``, and its sum as it is seen."""
    trainer = SharedNoiseTrainer(
        still(sharing.record),
        sharing.noise,
        sharing.secagg,
        sharing.weights,
        model,
        epochs=sharing.epochs,
        rounds=claim.rounds,
        seed=seed,
    )
    return trainer, watch(trainer, claim, sharing, actual)


def watch(
    trainer: SharedNoiseTrainer, claim: AuditedClaim, sharing: Sharing, actual: Actual
) -> CoalitionSum:
    """Put a watched sum into ``trainer``, and what is broken on purpose after it was planned."""
    trainer.settings = replace(trainer.settings, clip_norm=actual.clip * claim.clip_norm)
    trainer.sum = watched = CoalitionSum(
        trainer.sum,
        Coalition.planned(claim, sharing),
        seed=trainer.seed,
        secagg=sharing.secagg,
        noise_part=actual.noise / claim.noise_multiplier,
    )
    return watched


def shared_trial(
    claim: AuditedClaim, sharing: Sharing, actual: Actual, steps: int, part: float
) -> Trial:
    """The sum over full-batch steps of the canary's coordinate, as the coalition sees it."""
    model = linear_model(SIZE, 1)
    trainer, watched = watched_trainer(
        claim, sharing, actual, model=model, seed=RootSeed.from_user(0)
    )
    data = OneCanary.make(claim.clip_norm, part, RootSeed.from_user(0))
    nothing = np.zeros(SIZE)
    sums = {}
    for present in (True, False):
        mine = _clipped(trainer, data.records(present))
        others = dict.fromkeys(watched.coalition.survivors, nothing)
        sums[present] = others | {claim.hospital: mine}

    def run(seed: RootSeed, present: bool) -> float:
        own = watched.again(seed)
        for step in range(steps):
            own.release(sums[present], round=1, step=step)
        return float(sum(view[0] for view in own.seen))

    return run


def _clipped(trainer: SharedNoiseTrainer, records: Tensor) -> np.ndarray:
    dtype = next(trainer.model.parameters()).dtype
    summed, _ = clipped_sum(
        trainer.model,
        record_loss,
        records.to(dtype),
        torch.ones(len(records), 1, dtype=dtype),
        clipping=Clipping(trainer.settings.clip_norm, trainer.settings.clipping),
        engine=trainer.settings.engine,
    )
    return summed.total.numpy()


def shared_traces(
    trainer: SharedNoiseTrainer,
    watched: CoalitionSum,
    rounds: int,
    layout: OrthogonalCanaries,
    included: np.ndarray,
) -> Iterator[np.ndarray]:
    """What the coalition sees of every step, (m,) float64; the canaries are honest hospitals'."""
    hospitals = _hospitals(watched.coalition, layout, included)
    model = CanaryScore(layout.side)
    trainer.train_on(model)
    vector = to_vector(model)
    for round_number in range(1, rounds + 1):
        vector, _ = trainer.run_round(vector, hospitals, round_number)
        yield from watched.seen
        watched.seen.clear()


def _hospitals(
    coalition: Coalition, layout: OrthogonalCanaries, included: np.ndarray
) -> dict[int, HospitalData]:
    """The canaries dealt out among the honest, and to everybody a record without a gradient."""
    made = {}
    for one in coalition.survivors:
        held = included[:0]
        if one in coalition.honest:
            held = included[coalition.honest.index(one) :: len(coalition.honest)]
        features = torch.cat([layout.features(held), torch.zeros(1, 2 * layout.side)])
        labels = torch.zeros(len(features), dtype=torch.int64)
        made[one] = HospitalData(one, LabelledFeatures(features, labels))
    return made
