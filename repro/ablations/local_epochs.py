"""Local epochs: more training in every hospital between two rounds.

Command: ``repro ablate local-epochs``. Cost and hardware: 8 runs a seed, of half to four times
the matrix' length; minutes on 2 cores in ``quick``, a CUDA device for ``paper``. Expected: more
epochs help FedAvg while rounds are few; under DP-SGD each epoch also costs noise, since ε is the
total, so that the gain is smaller.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile

FACTORS = (0.5, 1, 2, 4)  # of the profile's local epochs


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    found = []
    for arm in ("fedavg", "dpsgd-eps6"):
        own = base(arm, profile, hospitals)
        for factor in FACTORS:
            # The label is the same for all arms; an arm's own number of epochs need not be.
            epochs = own.local.epochs if factor == 1 else factor * own.local.epochs
            found.append((f"× {factor:g}", change(own, "local", epochs=epochs)))
    return found


ABLATION = Ablation(
    name="local-epochs",
    question="Do more local epochs a round help, at the same number of rounds and the same ε?",
    axis="local epochs, as multiples of the profile's",
    variants=variants,
    columns=("training_seconds", "epsilon"),
)
