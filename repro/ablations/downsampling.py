"""Downsampling: a stride of 2, as in DPResNet, or max-pooling, as in ResNet-9.

Command: ``repro ablate downsampling``. Cost and hardware: 4 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: pooling a little more accurate and slower, since
the convolution before it works at full resolution.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    return [
        (kind, change(base(arm, profile, hospitals), "model", downsampling=kind))
        for arm in ("fedavg", "dpsgd-eps6")
        for kind in ("stride", "pool")
    ]


ABLATION = Ablation(
    name="downsampling",
    question="Does it matter that DPResNet strides where ResNet-9 pools?",
    axis="downsampling",
    variants=variants,
    columns=("parameters", "training_seconds", "epsilon"),
    ordered=False,
)
