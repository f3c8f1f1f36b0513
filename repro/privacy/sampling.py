"""Poisson sampling: every record takes part in a step with the same public probability.

Batch t of (hospital, round) is a function of the seed and these numbers, so a resumed run
draws what the uninterrupted one would have, and there is no sampler state to lose.
The drawn batch size is private: nothing here reports it, and nothing may divide by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.errors import InputError
from repro.privacy.validation import Number, check_count
from repro.random import RootSeed
from repro.typing import Int


def check_sample_rate(value: Number) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise InputError("sample_rate", value, "a number in (0, 1]")
    return float(value)


@dataclass(frozen=True)
class PoissonSampler:
    """Poisson sampling of ``records`` records at ``sample_rate`` (both public).

    The expected batch size, ``sample_rate · records``, is what gradient sums are divided by.
    """

    records: int
    sample_rate: Number

    def __post_init__(self) -> None:
        check_count("records", self.records)
        check_sample_rate(self.sample_rate)

    @classmethod
    def with_expected_batch(cls, records: int, expected_batch: int) -> PoissonSampler:
        """Sample rate expected_batch / records; a batch larger than the data is refused."""
        check_count("records", records)
        check_count("expected_batch", expected_batch)
        if expected_batch > records:
            raise InputError(
                "expected_batch", expected_batch, f"at most the number of records, {records}"
            )
        return cls(records, expected_batch / records)

    @property
    def expected_batch(self) -> float:
        return float(self.sample_rate * self.records)

    def steps_per_epoch(self) -> int:
        """Steps in which each record takes part once on average, rounded up: ⌈1 / rate⌉."""
        # The tolerance undoes the rounding of b / n, e.g. 3 / 49 · 49 < 3.
        return math.ceil(1 / self.sample_rate * (1 - 1e-12))

    def sample(
        self, seed: RootSeed, *, hospital: int, round: int, step: int
    ) -> Int[Tensor, " drawn"]:
        """Indices of the records in this step's batch, ascending int64; possibly none."""
        draws = seed.numpy_generator("poisson-sample", hospital, round, step)
        chosen = draws.random(self.records) < self.sample_rate
        return torch.from_numpy(chosen.nonzero()[0])
