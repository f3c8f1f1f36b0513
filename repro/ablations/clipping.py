"""Clipping style of DP-SGD: flat, per layer, automatic.

Command: ``repro ablate clipping``. Cost and hardware: 3 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: flat and automatic close where nearly every
gradient is clipped; per layer behind, since it cuts each layer to the same length.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    own = base("dpsgd-eps6", profile, hospitals)
    return [
        (kind.replace("_", " "), change(own, "record_privacy", clipping=kind))
        for kind in ("flat", "per_layer", "automatic")
    ]


ABLATION = Ablation(
    name="clipping",
    question="Which way of clipping a record's gradient suits DP-SGD?",
    axis="clipping",
    variants=variants,
    columns=("gradients_clipped", "training_seconds", "epsilon"),
    ordered=False,
)
