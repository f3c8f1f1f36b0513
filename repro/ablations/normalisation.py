"""Normalisation: group, batch, layer or none.

Command: ``repro ablate normalisation``. Cost and hardware: 7 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: batch normalisation best without privacy and
impossible with it (it mixes the records of a batch, so no record's gradient exists); group and
layer normalisation close to each other; none behind, most of all under DP-SGD.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    return [
        (kind, change(base(arm, profile, hospitals), "model", normalisation=kind))
        for arm in ("fedavg", "dpsgd-eps6")
        for kind in ("group", "batch", "layer", "none")
        if not (kind == "batch" and arm == "dpsgd-eps6")
    ]


ABLATION = Ablation(
    name="normalisation",
    question="What does DPResNet owe to GroupNorm?",
    axis="normalisation",
    variants=variants,
    columns=("parameters", "training_seconds", "epsilon"),
    ordered=False,
)
