"""Precision of training: float32 against bfloat16 convolutions and products (bf16-mixed)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from repro.ablations.base import Cell, Conclusion, Variant, base, change
from repro.runs.profiles import PROFILES, Profile
from repro.runs.settings import TRAINED_IN

if TYPE_CHECKING:
    from repro.data import Dataset

WIDER = PROFILES["overnight"]


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    own = base("fedavg", profile, hospitals)
    if profile.name != "smoke":
        own = change(own, "model", width=max(WIDER.width, own.model.width))
        own = change(
            own,
            "local",
            epochs=max(WIDER.local_epochs, own.local.epochs),
            batch_size=max(WIDER.batch_size, own.local.batch_size),
        )
        own = replace(own, test_stride=WIDER.test_stride)
    return [(precision, replace(own, precision=precision)) for precision in TRAINED_IN]


def conclude(cells: Sequence[Cell], dataset: Dataset) -> Conclusion:
    """The difference seed by seed, with its 95 % interval (Student's t over seeds)."""
    first, second = cells
    pairs = zip(first.records, second.records, strict=True)
    points = [100 * (b.final_accuracy - a.final_accuracy) for a, b in pairs]
    shown, bounds = "one seed gives no interval", None
    if len(points) > 1:
        from scipy.stats import ttest_1samp

        low, high = ttest_1samp(points, 0.0).confidence_interval(0.95)
        bounds = [float(low), float(high)]
        shown = f"95 % interval {low:+.2f} to {high:+.2f} points over seeds"
    each = ", ".join(f"{value:+.2f}" for value in points)
    return Conclusion(
        notes=(f"{second.label} over {first.label}, same seeds: {each} points; {shown}.",),
        data={"points": points, "interval": bounds},
    )
