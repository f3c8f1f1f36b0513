"""Clip norm: of a record's gradient (DP-SGD) and of a hospital's update (“DP+” as it was run).

Command: ``repro ablate clip-norm``. Cost and hardware: 10 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: DP-SGD flat round the chosen clip norm and worse
far above it, since noise grows with the norm and gradients don't; clipping updates costs accuracy
only well below their usual length.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile

CLIP_NORMS = (0.1, 0.5, 1.0, 3.0, 7.0)


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    return [
        (f"{norm:g}", change(base(arm, profile, hospitals), part, clip_norm=norm))
        for arm, part in (("dpsgd-eps6", "record_privacy"), ("clip-secagg", "update_privacy"))
        for norm in CLIP_NORMS
    ]


ABLATION = Ablation(
    name="clip-norm",
    question="How does accuracy depend on the clip norm, of gradients and of updates?",
    axis="clip norm (L2)",
    variants=variants,
    columns=("gradients_clipped", "updates_clipped", "epsilon"),
)
