"""The job that ``repro bench scale`` times, on one rank or under ``torchrun``.

    python -m repro.bench.scale_job '{"hospitals": 10}'

The federation's own loop over hospitals whose images are random bytes. Rank 0 prints one JSON
object: seconds a round, seconds by part, and every rank's peak memory.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro.bench.harness import peak_mib
from repro.federated.aggregation import Aggregator, PlainAggregator
from repro.federated.averaging import Averaging
from repro.federated.images import LabelledImages
from repro.federated.parallel.distributed import join
from repro.federated.parallel.ranks import Ranks
from repro.federated.protocol import Place
from repro.federated.rounds import Federation, run_rounds
from repro.federated.secure import SecureAggregation
from repro.federated.training.plain import HospitalData, PlainTrainer
from repro.federated.vector import to_vector
from repro.models.registry import build_model
from repro.privacy.mechanisms import Identity
from repro.privacy.noise_key import new_run
from repro.randomness import RootSeed
from repro.runs.settings import LocalSettings, ModelSettings, SecAggParameters

CLASSES = 8
TEST_IMAGES = 64


@dataclass(frozen=True)
class Job:
    """What is timed. images: of each hospital; width: of DPResNet; rounds: in one go."""

    hospitals: int
    images: int = 4
    width: int = 4
    rounds: int = 1
    secure: bool = False
    neighbours: int = 4
    threads: int = 1


def run(job: Job, ranks: Ranks) -> dict[str, Any]:
    """``job.rounds`` rounds, after a warm-up step; every rank calls it and gets the answer."""
    torch.set_num_threads(job.threads)
    start = peak_mib()
    federation = federation_of(job, ranks)
    _warm_up(federation)
    with tempfile.TemporaryDirectory() as folder:
        ranks.gather(None)  # all begin together
        started = time.perf_counter()
        state = run_rounds(federation, Path(folder), lambda *_: None)
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds / job.rounds,
        "parts": {part: total / job.rounds for part, total in state.seconds.items()},
        "memory": ranks.gather({"start_mib": start, "peak_mib": peak_mib()}),
        "parameters": state.vector.numel(),
    }


def federation_of(job: Job, ranks: Ranks) -> Federation:
    seed = RootSeed.from_user(0)
    new_run(seed)
    weights = dict.fromkeys(range(job.hospitals), job.images)
    model = build_model(
        ModelSettings(width=job.width), in_channels=3, num_classes=CLASSES, seed=seed
    )
    aggregator: Aggregator = PlainAggregator(ranks)
    if job.secure:
        neighbours = min(job.neighbours, job.hospitals - 1)
        parameters = SecAggParameters(neighbours, threshold=neighbours // 2 + 1)
        aggregator = SecureAggregation(parameters, weights, seed, ranks)
    return Federation(
        model=model,
        hospitals={
            one: HospitalData(one, _images(one, job.images)) for one in ranks.share(weights)
        },
        weights=weights,
        test=_images(job.hospitals, TEST_IMAGES),
        num_classes=CLASSES,
        protocol=Averaging(
            model,
            PlainTrainer(LocalSettings(epochs=1)),
            Identity(),
            aggregator,
            weights,
            seed=seed,
            ranks=ranks,
        ),
        seed=seed,
        rounds=job.rounds,
        ranks=ranks,
    )


def _warm_up(federation: Federation) -> None:
    """The first hospital's training, thrown away: libraries set themselves up."""
    first = next(iter(federation.hospitals.values()))
    federation.protocol.part(to_vector(federation.model), first, Place(0))


def _images(which: int, count: int) -> LabelledImages:
    stream = np.random.default_rng(which)
    images = stream.integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)
    return LabelledImages.from_arrays(images, stream.integers(0, CLASSES, count))


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    with join() as ranks:
        answer = run(job, ranks)
        if ranks.first:
            print(json.dumps(answer))


if __name__ == "__main__":
    main()
