"""Local steps, views and averages: what shared-noise training gains at no cost in privacy.

Command: ``repro ablate local-steps``. Cost and hardware: 6 runs a seed, the longest with four
times the gradients of one run; minutes on 2 cores in ``quick``, a CUDA device for ``paper``.
Expected: little of local steps, since a record alone is soon learned by heart and its displacement
points where its first gradient does; something of views and of averages, which take noise of
sampling and of privacy away. As many private sums and the same ε everywhere.

Judged on the hospitals' held-out images, so that what helps may be chosen by it. Of a linear layer
on fixed features nothing much can come: all of a record's gradients there are (p − y) xᵀ, with the
one x, so that steps change the weights of the classes alone; views of features there are none.
"""

from __future__ import annotations

from dataclasses import replace

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile

ARM = "shared-dpsgd-eps6"
STEPS = (1, 2, 4)
RATE = 0.01  # of a record's own steps: docs/settings-search.md
VIEWS = 4
DECAY = 0.9  # of the average, a step


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    own = replace(base(ARM, profile, hospitals), evaluate_on="validation")
    found = []
    for steps in STEPS:
        label = f"{steps} own step{'s' * (steps > 1)}"
        rate = {"local_rate": RATE} if steps > 1 else {}
        found.append((label, change(own, "shared", local_steps=steps, **rate)))
    return [
        *found,
        (f"{VIEWS} views", change(own, "shared", views=VIEWS)),
        ("average", change(own, "shared", average=DECAY)),
        (f"{VIEWS} views\naverage", change(own, "shared", views=VIEWS, average=DECAY)),
    ]


ABLATION = Ablation(
    name="local-steps",
    question="Do steps of every record's own, views of it, or averages of models help where noise "
    "is shared, at equal ε?",
    axis="own steps of a record between two sums, views, average",
    variants=variants,
    columns=("late_accuracy", "gradients_clipped", "training_seconds", "epsilon"),
    ordered=False,
    judged_on="validation",
    seeds=(0, 1),
)
