"""Batch size: of ordinary local steps, and the expected one of Poisson steps.

Command: ``repro ablate batch-size``. Cost and hardware: 10 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: FedAvg falls with the batch, which takes fewer
steps at the same learning rate; DP-SGD has an optimum, since larger batches drown the noise and
smaller ones take more steps.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile

BATCHES = (8, 16, 32, 64, 128)


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    plain = base("fedavg", profile, hospitals)
    private = base("dpsgd-eps6", profile, hospitals)
    return [
        *((str(size), change(plain, "local", batch_size=size)) for size in BATCHES),
        *((str(size), change(private, "record_privacy", expected_batch=size)) for size in BATCHES),
    ]


ABLATION = Ablation(
    name="batch-size",
    question="Which batch size suits ordinary training, and which DP-SGD?",
    axis="images a batch (expected, with DP-SGD)",
    variants=variants,
    columns=("training_seconds", "epsilon"),
)
