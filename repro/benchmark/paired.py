"""Differences between methods, paired by seed and, where scores are kept, by test image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtr, stdtr

from repro.report.comparison import Paired
from repro.shapes import Float


def over_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> dict[str, Any] | None:
    """``first`` minus ``second``, seed -> accuracy (fractions), over their common seeds.

    Points of accuracy: mean, each seed's, Student's 95 % interval for the mean, and p of his
    two-sided paired test (Student 1908; None with one seed). It speaks of training again, with
    other noise and another partition, on the same images. None without a common seed.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    pairs = Paired(tuple(seeds), tuple(100 * (first[s] - second[s]) for s in seeds))
    summary = pairs.summary
    return {
        "seeds": seeds,
        "points": list(pairs.points),
        "mean": summary.mean,
        "interval": summary.interval(),
        "p": None
        if summary.deviation is None
        else _student(summary.mean, summary.deviation, seeds),
    }


def _student(mean: float, deviation: float, seeds: Sequence[int]) -> float:
    if deviation == 0:
        return float(mean == 0)
    t = mean / (deviation / math.sqrt(len(seeds)))
    return float(2 * stdtr(len(seeds) - 1, -abs(t)))


def over_images(
    first: Float[np.ndarray, "seeds n"], second: Float[np.ndarray, "seeds n"]
) -> dict[str, Any]:
    """The same difference, paired by test image: it speaks of other images of the same kind.

    Share of each image that each method has right, same seeds, same images; averaged over seeds
    first, as an image's seeds are not independent. Points, normal 95 % interval and two-sided p
    from the images' variance (of one seed and one class an image, nearly McNemar's test).
    """
    each = 100 * (first.mean(axis=0) - second.mean(axis=0))
    mean = float(each.mean())
    error = float(each.std(ddof=1) / math.sqrt(len(each)))
    p = float(mean == 0) if error == 0 else float(2 * ndtr(-abs(mean) / error))
    return {"images": len(each), "mean": mean, "p": p} | {
        "interval": (mean - 1.959964 * error, mean + 1.959964 * error)
    }


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values adjusted for how many were asked (Holm 1979): each at most one false in 1/level.

    None stays None and counts for nothing.
    """
    asked = sorted((p, place) for place, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, place) in enumerate(asked):
        highest = max(highest, min(1.0, (len(asked) - rank) * p))
        adjusted[place] = highest
    return adjusted
