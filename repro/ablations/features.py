"""From scattering to the averaged random filters: what each step of the way is worth.

Each variant up to the last "+" changes one thing in the one above it and keeps what that one
changed; those after it change one thing in the whole method. Clip norm, rate, floor and shares are
not searched again on the way: they stay those of ``random-newton-eps6`` until they become those of
``turned-newton-eps6``.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from repro.ablations.base import Cell, Conclusion, Variant, base, change
from repro.runs.filter_settings import FilterSettings
from repro.runs.profiles import Profile
from repro.runs.settings import RunSettings

if TYPE_CHECKING:
    from repro.data import Dataset

MAPS = 243  # of scattering on three colours, six numbers each; it keeps 1,024 axes of them
# The way, and its two ends: each with the settings that the steps above it had.
_RANDOM = FilterSettings(
    banks=((3, MAPS),), views=1, axes=1024, colours="one", response="averaged modulus"
)
_EVERY_PIXEL = replace(_RANDOM, response="modulus")
_TOGETHER = replace(_EVERY_PIXEL, colours="together")
_RECTIFIED = replace(_TOGETHER, response="rectified")
_ONE_PIXEL = replace(_RECTIFIED, banks=((1, MAPS // 3), (3, MAPS - MAPS // 3)))
# "fewer filters" is ``random-newton-eps6`` itself.
_EIGHT = replace(_ONE_PIXEL, banks=((1, 32), (3, 64)), axes=576, views=8)
_ALL_TURNS = replace(_EIGHT, views=24)
_BY_DISCS = FilterSettings(whitened_by="discs")
_BY_NOTHING = FilterSettings(whitened_by="nothing", axes=1152)
START, END = "scattering in rings", "+ floor, shares and rate of the steps"


def variants(profile: Profile, hospitals: int) -> list[Variant]:
    random = base("random-newton-eps6", profile, hospitals)
    turned = base("turned-newton-eps6", profile, hospitals)
    return [
        (START, base("scattering-newton-eps6", profile, hospitals)),
        ("+ as many random filters, 3 px", _with(random, _RANDOM)),
        ("+ maps of every pixel, not of 4 × 4", _with(random, _EVERY_PIXEL)),
        ("+ all colours at once", _with(random, _TOGETHER)),
        ("+ rectified at a threshold", _with(random, _RECTIFIED)),
        ("+ a third of them 1 px", _with(random, _ONE_PIXEL)),
        ("+ 96 filters, not 243", random),
        ("+ quarter turns and mirrors", _with(random, _EIGHT)),
        ("+ turns by 30 and 60 degrees", _with(random, _ALL_TURNS)),
        ("+ 96 filters of 5 px", change(random, "model", name="turned-filters")),
        (END, turned),
        ("whitened by drawn discs", _with(turned, _BY_DISCS)),
        ("not whitened by any image", _with(turned, _BY_NOTHING)),
        ("no private second moments", change(turned, "second_order", moments_share=0.0)),
    ]


def _with(settings: RunSettings, filters: FilterSettings) -> RunSettings:
    return change(settings, "model", name="turned-filters", filters=filters)


def conclude(cells: Sequence[Cell], dataset: Dataset) -> Conclusion:
    """What each step changes, from runs of the same seed: the partition is then the same too."""
    last = [cell.label for cell in cells].index(END)
    steps: list[dict[str, Any]] = []
    for position, cell in enumerate(cells[1:], start=1):
        before = cells[min(position - 1, last)]
        pairs = zip(cell.records, before.records, strict=True)
        gains = [100 * (one.final_accuracy - other.final_accuracy) for one, other in pairs]
        steps.append(
            {
                "step": cell.label,
                "against": before.label,
                "points": statistics.fmean(gains),
                "least": min(gains),
                "most": max(gains),
            }
        )
    told = "; ".join(
        f"{one['step'].removeprefix('+ ')} {one['points']:+.2f} "
        f"({one['least']:+.2f} to {one['most']:+.2f})"
        for one in steps[:last]
    )
    removed = "; ".join(f"{one['step']} {one['points']:+.2f}" for one in steps[last:])
    return Conclusion(
        notes=(
            "A “+” keeps what the variants above it changed. Points each adds to the one above "
            f"it, mean over seeds (least to most of a seed): {told}.",
            f"One thing changed in the whole method, points against it: {removed}. Without private "
            "second moments their share of the budget and their round go to one more step.",
            "Clip norm, rate, floor and shares were searched for the whole method and for "
            "random-newton-eps6, not for what lies between or is taken away.",
        ),
        data={"steps": steps},
    )
