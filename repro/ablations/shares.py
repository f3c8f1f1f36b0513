"""Shares, threshold and drop-outs of secure aggregation.

Command: ``repro ablate shares``. Cost and hardware: 6 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: as many drop-outs as shares minus threshold are
always survived, and then the mean of the others is exact, so that accuracy falls no more than
their images' absence explains; more neighbours cost bytes and time, not accuracy. Every variant
here is chosen to survive for certain: with fewer shares a round may fail, which ends the run.
"""

from __future__ import annotations

from repro.ablations.base import Ablation, Variant, base, change
from repro.runs.profiles import Profile

# (neighbours, threshold): the paper's graph [code], the same with one share fewer needed, and all
# the others with a majority; and how many hospitals are lost in every round.
GRAPHS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("paper", (0, 1)),
    ("looser", (2,)),
    ("complete", (0, 2, 4)),
)
FEWEST = 10  # hospitals: with fewer, four losses may leave no majority


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    hospitals = max(hospitals, FEWEST)
    own = base("fedavg-secagg", profile, hospitals)
    graphs = {"paper": (4, 4), "looser": (4, 3), "complete": (hospitals - 1, hospitals // 2 + 1)}
    found = []
    for kind, losses in GRAPHS:
        neighbours, threshold = graphs[kind]
        for lost in losses:
            label = f"{neighbours + 1} shares, {threshold} needed\n{lost} of {hospitals} lost"
            settings = change(
                own,
                "secagg",
                neighbours=neighbours,
                threshold=threshold,
                drop_rate=lost / hospitals,
            )
            found.append((label, settings))
    return found


ABLATION = Ablation(
    name="shares",
    question="What do shares, threshold and drop-outs cost in accuracy, bytes and time?",
    axis="shares, threshold, drop-outs",
    variants=variants,
    columns=("tolerance", "survivors", "traffic", "aggregation_seconds", "error_bound"),
    ordered=False,
)
