"""ε: the total budget of a record under DP-SGD, beyond the matrix' four values.

Command: ``repro ablate epsilon``. Cost and hardware: 7 runs a seed, 5 of them the matrix' own;
minutes on 2 cores in ``quick``, a CUDA device for ``paper``. Expected: accuracy rises with ε and
stays below FedAvg without privacy.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.formatting import small
from repro.runs.arm import EPSILONS
from repro.runs.profiles import Profile
from repro.runs.settings import RecordPrivacy, RunSettings


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    smallest = base("dpsgd-eps1", profile, hospitals)
    largest = base("dpsgd-eps8", profile, hospitals)
    return [
        ("0.5", change(smallest, "record_privacy", epsilon=0.5)),
        *((f"{e:g}", base(f"dpsgd-eps{e:g}", profile, hospitals)) for e in EPSILONS),
        ("16", change(largest, "record_privacy", epsilon=16.0)),
        ("no guarantee", base("fedavg", profile, hospitals)),
    ]


def series(settings: RunSettings) -> str:
    return "record-level DP-SGD" if settings.record_privacy else settings.arm


ABLATION = Ablation(
    name="epsilon",
    question="What accuracy does a total ε for a record buy?",
    axis=f"ε (total, δ = {small(RecordPrivacy.delta)})",
    variants=variants,
    columns=("gradients_clipped", "epsilon"),
    series=series,
)
