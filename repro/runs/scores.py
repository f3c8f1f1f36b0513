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
    buffer = io.BytesIO()
    np.save(buffer, np.clip(shifted, -65504.0, 65504.0).astype(np.float16))  # float16's range
    return gzip.compress(buffer.getvalue(), mtime=0)


def unpack(content: bytes) -> np.ndarray:
    """(N, classes) float32 logits, up to a constant a row. Raises InputError for other bytes."""
    try:
        found = np.load(io.BytesIO(gzip.decompress(content)), allow_pickle=False)
    except (OSError, EOFError, ValueError) as problem:
        raise InputError("scores", str(problem), f"a whole {NAME}") from problem
    if found.ndim != 2 or found.dtype != np.float16:
        raise InputError("scores", f"{found.dtype} {found.shape}", "float16, (images, classes)")
    result: np.ndarray = found.astype(np.float32)
    return result


def pack_labels(labels: np.ndarray) -> bytes:
    """(N,) whole labels of the test split, in its order: what scores are judged by."""
    buffer = io.BytesIO()
    np.save(buffer, labels.astype(np.int32))
    return gzip.compress(buffer.getvalue(), mtime=0)


def unpack_labels(content: bytes) -> np.ndarray:
    """(N,) int64. Raises InputError for other bytes."""
    try:
        found = np.load(io.BytesIO(gzip.decompress(content)), allow_pickle=False)
    except (OSError, EOFError, ValueError) as problem:
        raise InputError("test labels", str(problem), "what pack_labels wrote") from problem
    if found.ndim != 1 or found.dtype != np.int32:
        raise InputError("test labels", f"{found.dtype} {found.shape}", "int32, (images,)")
    result: np.ndarray = found.astype(np.int64)
    return result
