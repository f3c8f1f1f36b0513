"""What is measured of a run on the test images."""

from __future__ import annotations

import numpy as np

from repro.report import clinical
from repro.shapes import Float, Int64, Shaped


def from_confusion(confusion: Shaped[np.ndarray, "c c"]) -> dict[str, float]:
    """Accuracy, balanced accuracy (mean recall) and the least recall of a class; fractions.

    confusion: row true, column predicted. Classes without a test image count in neither of the
    latter two.
    """
    counts = np.asarray(confusion)
    recalls = clinical.recalls(counts.tolist())
    return {
        "accuracy": float(counts.trace() / counts.sum()),
        "balanced_accuracy": float(np.nanmean(recalls)),
        "worst_recall": float(np.nanmin(recalls)),
    }


def right(
    scores: Float[np.ndarray, "n c"], labels: Int64[np.ndarray, "n ..."]
) -> Float[np.ndarray, " n"]:
    """Share of every image's labels that is predicted: 0 or 1 where it has one class."""
    if labels.ndim == 2:
        found: np.ndarray = ((scores > 0) == (labels == 1)).mean(axis=1)
    else:
        found = (scores.argmax(axis=1) == labels).astype(np.float64)
    return found


def confusion_of(
    scores: Float[np.ndarray, "n c"], labels: Int64[np.ndarray, "n ..."]
) -> Int64[np.ndarray, "k k"]:
    """Row true, column predicted; (2, 2), added up over labels, where images may have several."""
    size = 2 if labels.ndim == 2 else scores.shape[1]
    predicted = (scores > 0).astype(np.int64) if labels.ndim == 2 else scores.argmax(axis=1)
    cells = np.bincount((labels * size + predicted).ravel(), minlength=size * size)
    return cells.reshape(size, size)


def mean_auc(scores: Float[np.ndarray, "n c"], labels: Int64[np.ndarray, "n ..."]) -> float | None:
    """Area under the ROC curve of each class or label against the rest, averaged: MedMNIST's AUC.

    scores: logits; of one class an image, softmax is taken first, as MedMNIST does. Labels that
    all test images have, or none, do not count; None where no other is left.
    """
    if labels.ndim == 1:
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float64)
        scores = shifted / shifted.sum(axis=1, keepdims=True)
    areas = clinical.auc(scores, labels)
    return None if np.isnan(areas).all() else float(np.nanmean(areas))
