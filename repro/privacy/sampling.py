"""Poisson sampling: every record takes part in a step with the same public probability.

Batch t of (party, round) is a function of the seed and these numbers, so a resumed run
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
from repro.randomness import RootSeed
from repro.shapes import Int


def check_sample_rate(value: Number) -> float:
    return check_real("sample_rate", value, lambda x: 0 < x <= 1, "a number in (0, 1]")


@dataclass(frozen=True)
class PoissonSampler:
    """Poisson sampling of ``records`` records at ``sample_rate`` (both public).

    The expected batch size, ``sample_rate · records ÷ bands``, is what gradient sums are divided
    by. bands: step t of a round draws from the records i ≡ t (mod ``bands``) alone, each of them
    at ``sample_rate`` (``repro.privacy.banded_noise``).
    """

    records: int
    sample_rate: Number
    bands: int = 1

    def __post_init__(self) -> None:
        check_counts(self, records=1, bands=1)
        object.__setattr__(self, "sample_rate", check_sample_rate(self.sample_rate))

    @classmethod
    def with_expected_batch(
        cls, records: int, expected_batch: int, bands: int = 1
    ) -> PoissonSampler:
        """Sample rate bands · expected_batch / records; a batch larger than the data, or than a
        band's records, is refused."""
        records = check_count("records", records)
        expected_batch = check_count("expected_batch", expected_batch)
        if expected_batch > records:
            raise InputError(
                "expected_batch", expected_batch, f"at most the number of records, {records}"
            )
        bands = check_count("bands", bands)
        if bands * expected_batch > records:
            most = records // expected_batch
            raise InputError("bands", bands, f"at most {most}, records ÷ expected batch")
        return cls(records, bands * expected_batch / records, bands)

    @property
    def expected_batch(self) -> float:
        return float(self.sample_rate * self.records / self.bands)

    def steps_per_epoch(self) -> int:
        """Steps in which each record takes part once on average, rounded up: ⌈bands / rate⌉."""
        # The tolerance undoes the rounding of b / n, e.g. 3 / 49 · 49 < 3.
        return math.ceil(self.bands / self.sample_rate * (1 - 1e-12))

    def sample(self, seed: RootSeed, *, party: int, round: int, step: int) -> Int[Tensor, " drawn"]:
        """Indices of the records in this step's batch, ascending int64; possibly none."""
        draws = seed.numpy_generator("poisson-sample", party, round, step)
        first = step % self.bands
        members = len(range(first, self.records, self.bands))
        chosen = draws.random(members) < self.sample_rate
        return torch.from_numpy(first + self.bands * chosen.nonzero()[0])
