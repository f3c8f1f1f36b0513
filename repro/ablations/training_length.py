"""Length of training: what DPResNet reaches when it gets as much of it as the scattering arms.

Command: ``repro ablate training-length``. Cost and hardware: 4 long runs a seed beside the
matrix' own; about 20 minutes on 2 cores in ``quick``, less than the matrix in ``paper``, whose
own training is longer than this. Expected: FedAvg gains most, and clipping still costs nothing;
DP-SGD at ε = 6 leaves the majority class and stays far behind FedAvg, ε = 1 further still.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import SCATTERING_EPOCHS, Profile

LONG = f"{SCATTERING_EPOCHS} local epochs"  # `repro.report.answer` quotes these rows
ARMS = ("fedavg", "clip-secagg", "dpsgd-eps6", "dpsgd-eps1")


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    found = []
    for arm in ARMS:
        own = base(arm, profile, hospitals)
        found += [
            ("the profile's own", own),
            (LONG, change(own, "local", epochs=SCATTERING_EPOCHS / own.rounds)),
        ]
    return found


ABLATION = Ablation(
    name="training-length",
    question="How much of what DPResNet's arms lack is training, and how much is privacy?",
    axis="local training in all rounds together",
    variants=variants,
    columns=("epsilon",),
    ordered=False,  # two settings, no scale between them
)
