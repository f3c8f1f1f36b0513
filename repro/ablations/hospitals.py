"""Number of hospitals: the same images among fewer or more of them.

Command: ``repro ablate hospitals``. Cost and hardware: 8 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``; ``--hospitals`` changes nothing. Expected: accuracy falls
with the number of hospitals, faster under DP-SGD, where each adds its own noise and has fewer
images to hide one among.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base
from repro.runs.profiles import Profile

COUNTS = (5, 10, 20, 40)


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    del hospitals  # it is what this ablation varies
    return [
        (str(count), base(arm, profile, count))
        for arm in ("fedavg", "dpsgd-eps6")
        for count in COUNTS
    ]


ABLATION = Ablation(
    name="hospitals",
    question="What does it cost to spread the same images over more hospitals?",
    axis="hospitals",
    variants=variants,
    columns=("training_seconds", "epsilon"),
)
