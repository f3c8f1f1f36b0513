"""Hospitals: who holds which training records, and which of them are kept for validation.

Only the train split is shared out. ``authors`` is the paper's partition; ``iid``, ``dirichlet``
and ``zipf`` change one thing at a time for ablations (nothing, label mix, size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro.checks import (
    check_choice,
    check_count,
    check_fraction,
    check_not_negative,
    check_positive,
)
from repro.errors import InputError
from repro.randomness import RootSeed
from repro.shapes import Int64

SCHEMES = {
    "authors": "the paper's: contiguous slices, sizes moved between pairs by a fixed seed",
    "iid": "random records, equal sizes",
    "dirichlet": "label skew: each class is shared out by Dirichlet(alpha) proportions",
    "zipf": "size skew: random records, size of hospital r proportional to r^-exponent",
}
AUTHORS_SEED = 42  # authors' code A: np.random.seed(42) before the sizes are drawn
SMALLEST = 2  # one record to train on, one to validate on
_LEAST_ALPHA, _MOST_ALPHA = 1e-100, 1e24  # of NumPy's Dirichlet: between them it is sound
Indices = Int64[np.ndarray, " _"]  # each its own length


@dataclass(frozen=True, eq=False)
class HospitalRecords:
    """Positions in the train split, ascending int64: ``train`` and ``validation`` are disjoint."""

    train: Indices
    validation: Indices

    @property
    def records(self) -> Indices:
        """All of the hospital's records, ascending."""
        return np.sort(np.concatenate([self.train, self.validation]))


def partition(
    labels: Int64[np.ndarray, "records ..."],
    hospitals: int,
    scheme: str = "authors",
    *,
    seed: int = 0,
    alpha: float = 0.5,
    exponent: float = 1.0,
    validation_fraction: float = 0.2,
) -> list[HospitalRecords]:
    """Share out the train split; every record is in exactly one place.

    labels: (N,) int64, in stored order, or (N, L), of which schemes but "dirichlet" read the
        number of records alone; hospitals: 1 to N // 2.
    seed: of the shuffles and of the train/validation splits (the authors' sizes have their own).
    alpha: Dirichlet concentration (> 0, small is skewed); exponent: Zipf's s (≥ 0, 0 is equal).
    validation_fraction: in [0, 1); a hospital of n records trains on ⌊(1 - fraction)·n⌋ of
        them (at least one), as ``random_split`` in the authors' code A does with 0.8.
    Each hospital has at least two records. Raises InputError naming the bad argument.
    """
    check_partition(hospitals, scheme, seed, alpha, exponent, validation_fraction)
    labels = _check_labels(labels, scheme)
    hospitals = _check_hospitals(len(labels), hospitals)
    alpha, exponent = float(alpha), float(exponent)
    root = RootSeed.from_user(seed)
    stream = root.numpy_generator("partition", scheme)
    if scheme == "authors":
        shares = partition_authors(len(labels), hospitals)
    elif scheme == "iid":
        shares = _shuffled_slices(equal_sizes(len(labels), hospitals), stream)
    elif scheme == "dirichlet":
        shares = _dirichlet(labels, hospitals, alpha, stream)
    else:
        shares = _shuffled_slices(zipf_sizes(len(labels), hospitals, exponent), stream)
    return [
        _hold_out(share, validation_fraction, root.numpy_generator("split", hospital))
        for hospital, share in enumerate(shares)
    ]


def check_partition(
    hospitals: int,
    scheme: str = "authors",
    seed: int = 0,
    alpha: float = 0.5,
    exponent: float = 1.0,
    validation_fraction: float = 0.2,
) -> None:
    """Raise InputError for arguments of ``partition`` that no data could make right."""
    check_choice("scheme", scheme, SCHEMES)
    check_count("hospitals", hospitals)
    RootSeed.from_user(seed)
    check_positive("alpha", alpha)
    check_not_negative("exponent", exponent)
    check_fraction("validation_fraction", validation_fraction, zero=True)


def _check_labels(labels: np.ndarray, scheme: str) -> Indices:
    found = np.asarray(labels)
    if found.ndim == 2 and scheme != "dirichlet":
        found = found[:, 0]
    if found.ndim != 1 or found.dtype.kind not in "iu":
        given = f"{found.shape} of {found.dtype}"
        raise InputError("labels", given, "one integer for each record, (N,)")
    return found.astype(np.int64, copy=False)


def partition_authors(count: int, hospitals: int) -> list[Indices]:
    """The authors' contiguous slices of ``count`` records in stored order (code A)."""
    return _slices(np.arange(count, dtype=np.int64), authors_sizes(count, hospitals))


def authors_sizes(count: int, hospitals: int) -> list[int]:
    """The authors' hospital sizes (code A): fixed for a given count and number of hospitals.

    Equal parts; then of hospitals (0, 1), (2, 3), … the first gives the second
    randint(0, ⌊0.5·⌊N/K⌋⌋) records, from NumPy's legacy generator seeded 42. An odd last
    hospital keeps its part.
    """
    hospitals = _check_hospitals(count, hospitals)
    sizes = equal_sizes(count, hospitals)
    legacy = np.random.RandomState(AUTHORS_SEED)  # frozen by NumPy's policy
    bound = (count // hospitals) // 2
    for first in range(0, hospitals - 1, 2):
        moved = int(legacy.randint(0, bound))
        sizes[first] -= moved
        sizes[first + 1] += moved
    return sizes


def equal_sizes(count: int, hospitals: int) -> list[int]:
    """⌊N/K⌋ each; the remainder goes to the last ones, one record each."""
    part, rest = divmod(count, hospitals)
    return [part] * (hospitals - rest) + [part + 1] * rest


def zipf_sizes(count: int, hospitals: int, exponent: float) -> list[int]:
    """Sizes that sum to ``count``: ``SMALLEST`` each, the rest in proportion to r^-exponent.

    r = 1 … K is the hospital's rank (Zipf's law); rounding is by largest remainder.
    """
    hospitals = _check_hospitals(count, hospitals)
    exponent = check_not_negative("exponent", exponent)
    weights = np.arange(1, hospitals + 1, dtype=np.float64) ** -exponent
    return [SMALLEST + n for n in _apportion(count - SMALLEST * hospitals, weights)]


def label_counts(labels: Int64[np.ndarray, "records ..."], num_classes: int) -> list[int]:
    """Records per class; per label, where a record may have several ((N, L) of 0 and 1)."""
    if labels.ndim == 2:
        return [int(n) for n in labels.sum(axis=0)]
    return [int(n) for n in np.bincount(labels, minlength=num_classes)]


def _check_hospitals(count: int, hospitals: int) -> int:
    most, number = count // SMALLEST, check_count("hospitals", hospitals)
    if number > most:
        raise InputError(
            "hospitals", hospitals, f"an integer from 1 to {most} ({count} training records)"
        )
    return number


def _apportion(total: int, weights: np.ndarray) -> list[int]:
    """Integers in proportion to ``weights`` with sum ``total``: largest remainder method."""
    exact = total * weights / weights.sum()
    sizes = np.floor(exact).astype(np.int64)
    ranking = np.argsort(sizes - exact, kind="stable")
    sizes[ranking[: total - int(sizes.sum())]] += 1
    return [int(n) for n in sizes]


def _slices(order: Indices, sizes: Sequence[int]) -> list[Indices]:
    return np.split(order, np.cumsum(sizes)[:-1])


def _shuffled_slices(sizes: Sequence[int], stream: np.random.Generator) -> list[Indices]:
    return _slices(stream.permutation(sum(sizes)), sizes)


def _dirichlet(
    labels: Int64[np.ndarray, " records"], hospitals: int, alpha: float, stream: np.random.Generator
) -> list[Indices]:
    """Class by class, proportions over hospitals from Dirichlet(alpha, …, alpha).

    Yurochkin et al., *Bayesian nonparametric federated learning*, ICML 2019, section 4. They
    leave small hospitals as they fall; here each lacking records takes them from the largest.
    """
    shares: list[list[int]] = [[] for _ in range(hospitals)]
    for label in np.unique(labels):
        records = stream.permutation(np.flatnonzero(labels == label))
        sizes = _apportion(len(records), _proportions(hospitals, alpha, stream))
        for share, part in zip(shares, _slices(records, sizes), strict=True):
            share.extend(part.tolist())
    for share in shares:
        while len(share) < SMALLEST:
            share.append(max(shares, key=len).pop())
    return [np.array(share, dtype=np.int64) for share in shares]


def _proportions(hospitals: int, alpha: float, stream: np.random.Generator) -> np.ndarray:
    """One draw of Dirichlet(alpha, …, alpha), also where NumPy's is not finite or adds up to 0.

    Far out the limits are taken, from which no number of records tells the law: all of it to one
    hospital, drawn uniformly, as alpha goes to 0, and equal parts as it goes to ∞ (a proportion's
    relative deviation is below alpha^-1/2).
    """
    if alpha < _LEAST_ALPHA:
        one: np.ndarray = np.eye(hospitals)[stream.integers(hospitals)]
        return one
    if alpha > _MOST_ALPHA:
        return np.full(hospitals, 1 / hospitals)
    return stream.dirichlet(np.full(hospitals, alpha))


def _hold_out(share: Indices, fraction: float, stream: np.random.Generator) -> HospitalRecords:
    # Rounded first, so that a product such as (1 - 0.9) * 10 = 0.9999999999999998 counts as 1.
    fraction = float(fraction)
    trained = max(1, math.floor(round((1 - fraction) * len(share), 9)))
    order = stream.permutation(share)
    return HospitalRecords(np.sort(order[:trained]), np.sort(order[trained:]))
