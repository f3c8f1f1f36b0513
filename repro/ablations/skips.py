"""Skips: none, the paper's single one, or one round each of the three blocks.

Command: ``repro ablate skips``. Cost and hardware: 6 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: little difference, the network being shallow
enough to train without any; the skips' own 1×1 convolutions add parameters, hence noise under
DP-SGD.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    return [
        (kind, change(base(arm, profile, hospitals), "model", skips=kind))
        for arm in ("fedavg", "dpsgd-eps6")
        for kind in ("none", "first", "all")
    ]


ABLATION = Ablation(
    name="skips",
    question="Was one skip enough, where a ResNet has one round every block?",
    axis="skips",
    variants=variants,
    columns=("parameters", "training_seconds", "epsilon"),
    ordered=False,
)
