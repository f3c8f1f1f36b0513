"""Quantisation levels of secure aggregation.

Command: ``repro ablate levels``. Cost and hardware: 7 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: no difference down to about a thousand levels
over ±8; below, the unbiased rounding noise becomes as large as the updates and accuracy falls.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile

LEVELS = (2**22, 2**16, 2**12, 2**10, 2**8)  # 2^22 is Flower's default [flwr]


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    own = base("fedavg-secagg", profile, hospitals)
    return [
        ("none", base("fedavg", profile, hospitals)),
        ("all the field has", own),
        *((f"{n:,}", change(own, "secagg", levels=n)) for n in LEVELS),
    ]


ABLATION = Ablation(
    name="levels",
    question="How coarsely may updates be quantised before accuracy suffers?",
    axis="quantisation levels over ±8",
    variants=variants,
    columns=("error_bound", "traffic"),
    ordered=False,
)
