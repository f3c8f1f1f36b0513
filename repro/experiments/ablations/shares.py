"""Shares, threshold and drop-outs of secure aggregation.

Command: ``repro ablate shares``. Cost and hardware: 6 runs a seed; minutes on 2 cores in
``quick``, a CUDA device for ``paper``. Expected: as many drop-outs as shares minus threshold are
always survived, and then the mean of the others is exact, so that accuracy falls no more than
their images' absence explains; more neighbours cost bytes and time, not accuracy. Every variant
here is chosen to survive for certain: with fewer shares a round may fail, which ends the run.
"""

from __future__ import annotations

from repro.experiments.ablations.base import Ablation, Variant, base, change
from repro.profiles import Profile

# neighbours, threshold, hospitals lost in every round; None: all the others
GRAPHS: tuple[tuple[int | None, int, int], ...] = (
    (4, 4, 0),  # the paper's [code]
    (4, 4, 1),
    (4, 3, 2),
    (None, 6, 0),
    (None, 6, 2),
    (None, 6, 4),
)
FEWEST = 10  # hospitals, for six shares to be a majority that four losses leave intact


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    hospitals = max(hospitals, FEWEST)
    own = base("fedavg-secagg", profile, hospitals)
    found = []
    for neighbours, threshold, lost in GRAPHS:
        neighbours = hospitals - 1 if neighbours is None else neighbours
        label = f"{neighbours + 1} shares, {threshold} needed\n{lost} of {hospitals} lost"
        graph = {"neighbours": neighbours, "threshold": threshold, "drop_rate": lost / hospitals}
        found.append((label, change(own, "secagg", **graph)))
    return found


ABLATION = Ablation(
    name="shares",
    question="What do shares, threshold and drop-outs cost in accuracy, bytes and time?",
    axis="shares, threshold, drop-outs",
    variants=variants,
    columns=("tolerance", "survivors", "traffic", "aggregation_seconds", "error_bound"),
    ordered=False,
)
