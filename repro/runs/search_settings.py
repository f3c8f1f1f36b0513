"""A private search: how many trials, of which candidates, and what their scores may cost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from repro.checks import check_counts, check_fraction, check_positive, check_real
from repro.errors import InputError


class Candidate(NamedTuple):
    """What one trial trains with."""

    clip_norm: float
    time: float  # learning rate × clip norm: how far a step goes where every record is clipped
    floor: float  # as of ``SecondOrder``


@dataclass(frozen=True)
class SearchSettings:
    """Written down before any record is looked at; each trial draws one candidate of the grid.

    The grid is in factors of 2 around what a method without clipping and noise would do: nothing
    in it was chosen on a private image.
    """

    trials: float = 5.0  # mean of the number of trials, which is drawn at random [ours]
    eta: float = 0.0  # shape of its distribution: 0 logarithmic, 1 geometric [ours]
    rounds: int = 14  # of a trial: mean, second moments, twelve steps [ours]
    score_share: float = 0.05  # of a trial's budget μ², for the count of right answers [ours]
    clip_norms: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5)
    times: tuple[float, ...] = (250.0, 500.0, 1000.0)
    floors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        check_counts(self, rounds=3)
        if not check_positive("trials", self.trials) > 1:
            raise InputError("trials", self.trials, "a mean number of trials above 1")
        check_real("eta", self.eta, lambda x: x > -1, "a number above −1")
        check_fraction("score_share", self.score_share, zero=False)
        for name in ("clip_norms", "times", "floors"):
            given = tuple(check_positive(name, one) for one in getattr(self, name))
            if not given:
                raise InputError(name, given, "at least one")
            object.__setattr__(self, name, given)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(Candidate(*one) for one in product(self.clip_norms, self.times, self.floors))
