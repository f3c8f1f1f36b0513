"""Measures a clinician asks for: AUC, F1, balanced accuracy, recall with an interval, calibration.

Over classes every measure is the plain mean ("macro"), so that a rare class counts as much as a
frequent one; a class that the test split lacks is left out of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from repro.checks import check_real
from repro.report.statistics import CONFIDENCE
from repro.shapes import Bool, Float, Int64

BINS = 15  # of the calibration error, as in Guo et al. 2017


def probabilities(logits: np.ndarray) -> Float[np.ndarray, "images classes"]:
    """Softmax in float64 of (images, classes) logits, which may lack a constant a row."""
    from scipy.special import softmax

    shares: np.ndarray = softmax(logits.astype(np.float64), axis=1)
    return shares


def auc(
    shares: Float[np.ndarray, "images classes"], labels: Int64[np.ndarray, "images ..."]
) -> Float[np.ndarray, " classes"]:
    """Area under each class's ROC curve against the rest; NaN where either side has no image.

    The share of pairs (an image of the class, another) in which the former has the larger
    probability, ties counting half: (R − n(n+1)/2) / (n·m), R being the sum of the ranks of the
    class's n images among all, of equal ones the mean rank (Hanley and McNeil 1982; Mann and
    Whitney 1947). MedMNIST's own measure is the mean over classes. labels: (N,) classes, or
    (N, C) of 0 and 1 where an image may have several of the labels.
    """
    from scipy.stats import rankdata

    own = labels == 1 if labels.ndim == 2 else labels[:, None] == np.arange(shares.shape[1])
    n, m = own.sum(axis=0), (~own).sum(axis=0)
    ranks = np.where(own, rankdata(shares, axis=0), 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (ranks - n * (n + 1) / 2) / (n * m)
    return np.where((n > 0) & (m > 0), found, np.nan)


def calibration_error(
    shares: Float[np.ndarray, "images classes"], labels: Int64[np.ndarray, " images"]
) -> float:
    """Expected calibration error: Σ (images of a bin ÷ images) · |accuracy − mean confidence|.

    Confidence is the predicted class's probability; bins of equal width, each open on the left
    (Naeini et al. 2015; Guo et al. 2017, equation 3). 0: what is said with 90 % is right in 90 %.
    """
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    edges = np.arange(1, BINS) / BINS
    bin_of = np.searchsorted(edges, confidence, side="left")
    gap = np.bincount(bin_of, weights=right - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(labels))


def recalls(confusion: Sequence[Sequence[int]]) -> list[float]:
    """Per class: right over all of that class; NaN where the test split has none."""
    return [row[i] / sum(row) if sum(row) else math.nan for i, row in enumerate(confusion)]


def balanced_accuracy(confusion: Sequence[Sequence[int]]) -> float:
    """Mean recall (Brodersen et al. 2010)."""
    return float(np.nanmean(recalls(confusion)))


def worst_class(confusions: Sequence[Sequence[Sequence[int]]]) -> tuple[int, float]:
    """(class, its recall) of the class that several runs find least, on average over them."""
    means = np.mean([recalls(confusion) for confusion in confusions], axis=0)
    worst = int(np.nanargmin(means))
    return worst, float(means[worst])


def macro_f1(confusion: Sequence[Sequence[int]]) -> float:
    """Mean over classes of 2·right / (of the class + said to be of it)."""
    table = np.asarray(confusion, dtype=np.float64)
    of_class, said = table.sum(axis=1), table.sum(axis=0)
    there = of_class > 0
    return float(np.mean(2 * table.diagonal()[there] / (of_class + said)[there]))


def wilson(fraction: float, images: int) -> tuple[float, float]:
    """Wilson's (1927) 95 % interval for the chance behind a fraction of ``images`` independent
    ones; unlike p ± 2 errors it stays within [0, 1] and has a width at 0 and 1."""
    from scipy.special import ndtri

    check_real("fraction", fraction, lambda x: 0 <= x <= 1, "a number from 0 to 1")
    z2 = float(ndtri((1 + CONFIDENCE) / 2)) ** 2
    middle = (fraction + z2 / (2 * images)) / (1 + z2 / images)
    half = math.sqrt(z2 * (fraction * (1 - fraction) / images + z2 / (4 * images**2)))
    half /= 1 + z2 / images
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Difference:
    """Accuracy of one arm over another on the same images, as fractions."""

    mean: float
    interval: tuple[float, float]  # 95 %
    p: float  # of a difference at least this large, were there none
    first_only: float  # share of (image, seed) that the first has right and the second wrong
    second_only: float


def paired(
    first: Bool[np.ndarray, "seeds images"], second: Bool[np.ndarray, "seeds images"]
) -> Difference:
    """Is there a difference, for images *and* seeds like these? A t test with both as random.

    first, second: what each has right, of the same seeds and images in the same order.
    The variance of the mean difference is taken as V = A + B, A that of the images' means ÷ images
    and B that of the seeds' means ÷ seeds. Each holds the residual's share once, which the truth
    does only once in all, so V errs upwards (as the pigeonhole bootstrap, Owen 2007, section 4).
    Degrees of freedom V² / (A²/(images − 1) + B²/(seeds − 1)) after Satterthwaite 1946. With one
    seed B is unknown and taken as 0: it then speaks of these two models alone.
    """
    from scipy.special import stdtr, stdtrit

    gaps = first.astype(np.float64) - second.astype(np.float64)
    seeds, images = gaps.shape
    mean = float(gaps.mean())
    by_image = float(gaps.mean(axis=0).var(ddof=1)) / images
    by_seed = float(gaps.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    variance = by_image + by_seed
    only = float((gaps > 0).mean()), float((gaps < 0).mean())
    if variance == 0:
        return Difference(mean, (mean, mean), 1.0 if mean == 0 else 0.0, *only)
    freedom = by_image**2 / (images - 1) + (by_seed**2 / (seeds - 1) if seeds > 1 else 0.0)
    freedom = variance**2 / freedom
    error = math.sqrt(variance)
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    p = min(1.0, 2 * float(stdtr(freedom, -abs(mean) / error)))
    return Difference(mean, (mean - half, mean + half), p, *only)
