"""A run's scores of every test image, small enough to keep beside its record.

Whatever measure is asked for later (AUC, calibration, recall at a threshold) needs no training.
"""

from __future__ import annotations

import gzip
import io

import numpy as np

from repro.errors import InputError

NAME = "scores.npy.gz"


def pack(logits: np.ndarray, *, labels: bool = False) -> bytes:
    """(N, classes) float logits of the last round, in the test split's order, as float16.

    The largest of every row is taken off, which no probability notices: the predicted class has
    exactly 0, so rounding cannot make another one equal to it unless it was, to 6e-8. Some 45 KB
    for BloodMNIST. The bytes depend on the numbers alone.
    labels: is every column a label of its own, whose sign counts? Then nothing is taken off.
    """
    shifted = logits.astype(np.float64)
    if not labels:
        shifted = shifted - logits.max(axis=1, keepdims=True)
    return _packed(np.clip(shifted, -65504.0, 65504.0).astype(np.float16))  # float16's range


def unpack(content: bytes) -> np.ndarray:
    """(N, classes) float32 logits, up to a constant a row. Raises InputError for other bytes."""
    return _unpacked("scores", content, "float16, (images, classes)", 2).astype(np.float32)


def pack_labels(labels: np.ndarray) -> bytes:
    """(N,) whole labels of the test split, in its order: what scores are judged by."""
    return _packed(labels.astype(np.int32))


def unpack_labels(content: bytes) -> np.ndarray:
    """(N,) int64. Raises InputError for other bytes."""
    return _unpacked("test labels", content, "int32, (images,)", 1).astype(np.int64)


def _packed(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return gzip.compress(buffer.getvalue(), mtime=0)


def _unpacked(field: str, content: bytes, expected: str, axes: int) -> np.ndarray:
    """expected: begins with the array's dtype."""
    try:
        found: np.ndarray = np.load(io.BytesIO(gzip.decompress(content)), allow_pickle=False)
    except (OSError, EOFError, ValueError) as problem:
        raise InputError(field, str(problem), f"whole bytes of {expected}") from problem
    if found.ndim != axes or found.dtype != np.dtype(expected.partition(",")[0]):
        raise InputError(field, f"{found.dtype} {found.shape}", expected)
    return found
