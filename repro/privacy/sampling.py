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

from repro.checks import Number, check_count, check_counts, check_real
from repro.errors import InputError
from repro.random import RootSeed
from repro.typing import Int


def check_sample_rate(value: Number) -> float:
    return check_real("sample_rate", value, lambda x: 0 < x <= 1, "a number in (0, 1]")


@dataclass(frozen=True)
class PoissonSampler:
    """Poisson sampling of ``records`` records at ``sample_rate`` (both public).

    The expected batch size, ``sample_rate · records``, is what gradient sums are divided by.
    """

    records: int
    sample_rate: Number

    def __post_init__(self) -> None:
        check_counts(self, records=1)
        object.__setattr__(self, "sample_rate", check_sample_rate(self.sample_rate))

    @classmethod
    def with_expected_batch(cls, records: int, expected_batch: int) -> PoissonSampler:
        """Sample rate expected_batch / records; a batch larger than the data is refused."""
        records = check_count("records", records)
        expected_batch = check_count("expected_batch", expected_batch)
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
