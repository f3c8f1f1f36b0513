"""Engine of the per-sample gradients: book-keeping against vmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from repro.ablations.base import Cell, Conclusion

if TYPE_CHECKING:
    from repro.data import Dataset


def conclude(cells: Sequence[Cell], dataset: Dataset) -> Conclusion:
    """How far two runs of one seed are apart, and how many times faster one is."""
    first, second = cells
    pairs = list(zip(first.records, second.records, strict=True))
    apart = max(abs(a.final_accuracy - b.final_accuracy) for a, b in pairs)
    ratio = sum(b.timings["training"] for _, b in pairs) / sum(
        a.timings["training"] for a, _ in pairs
    )
    return Conclusion(
        notes=(
            f"Same seed, other engine: last accuracies differ by at most {100 * apart:.2f} points.",
            f"{second.label} takes {ratio:.2f} times the training time of {first.label}.",
        ),
        data={"largest_difference": apart, "time_ratio": ratio},
    )
