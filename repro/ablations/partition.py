"""Partition: the authors' contiguous slices, IID, Dirichlet label skew, Zipf sizes.

Command: ``repro ablate partition``. Cost and hardware: 10 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: the authors' partition is as good as IID (it
differs in sizes only); label skew costs accuracy, more at Dirichlet's α = 0.1 than at 0.5; Zipf
sizes cost little without privacy and more with it, where a small hospital needs more noise.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile
from repro.runs.settings import PartitionSettings

PARTITIONS = (
    ("authors'", PartitionSettings()),
    ("IID", PartitionSettings(scheme="iid")),
    ("Dirichlet 0.5", PartitionSettings(scheme="dirichlet", alpha=0.5)),
    ("Dirichlet 0.1", PartitionSettings(scheme="dirichlet", alpha=0.1)),
    ("Zipf 1", PartitionSettings(scheme="zipf", exponent=1.0)),
)


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    return [
        (
            label,
            change(
                base(arm, profile, hospitals),
                "partition",
                scheme=partition.scheme,
                alpha=partition.alpha,
                exponent=partition.exponent,
            ),
        )
        for arm in ("fedavg", "dpsgd-eps6")
        for label, partition in PARTITIONS
    ]


ABLATION = Ablation(
    name="partition",
    question="How much does it matter how the images are divided among the hospitals?",
    axis="partition",
    variants=variants,
    columns=("training_seconds", "epsilon"),
    ordered=False,
)
