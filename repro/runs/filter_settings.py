"""Random filters as a run may vary them, one step at a time, for ``repro ablate features``."""

from __future__ import annotations

from dataclasses import dataclass

from repro.checks import check_choices, check_count, check_counts
from repro.errors import InputError

COLOURS = ("together", "one")  # what a filter sees: all of them, or one alone
# Of a filter: rectified at a random threshold; |response|; that averaged over 4 × 4 px, as
# scattering has it.
RESPONSES = ("rectified", "modulus", "averaged modulus")
# What whitening is learnt from: drawn cells, drawn discs that are no cells, or nothing at all.
WHITENED_BY = ("cells", "discs", "nothing")
VIEWS = (1, 8, 24)  # of an image: itself; its quarter turns and mirrors; also turned by 30 and 60°


@dataclass(frozen=True)
class FilterSettings:
    """Of the model "turned-filters"; the defaults are those of ``TurnedFilterRings``."""

    banks: tuple[tuple[int, int], ...] = ((1, 32), (3, 64), (5, 96))  # (side in pixels, how many)
    views: int = 24  # the statistics are averages over so many [ours]
    axes: int = 576  # principal axes kept, at most six for each filter [ours]
    colours: str = "together"
    response: str = "rectified"
    whitened_by: str = "cells"

    def __post_init__(self) -> None:
        check_choices(self, {"colours": COLOURS, "response": RESPONSES, "whitened_by": WHITENED_BY})
        check_counts(self, axes=1)
        if self.views not in VIEWS:
            raise InputError("views", self.views, "one of " + ", ".join(map(str, VIEWS)))
        banks = tuple((check_count("banks", s), check_count("banks", n)) for s, n in self.banks)
        if not banks or any(side % 2 == 0 for side, _ in banks):
            raise InputError("banks", self.banks, "(odd side, count) of each bank of filters")
        object.__setattr__(self, "banks", banks)
        raw = 6 * sum(count for _, count in banks)
        if self.axes > raw or (self.whitened_by == "nothing" and self.axes != raw):
            raise InputError("axes", self.axes, f"{raw}, or fewer where whitening picks them")
