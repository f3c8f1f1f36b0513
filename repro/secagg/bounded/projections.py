"""Random projections of vectors of field elements: R·x mod p, R over {−1, 0, 1}.

Every party that knows the key has the same R, of which only a block of columns exists at a time.
A projection is linear, so shares of a vector have shares of its projections.
"""

from __future__ import annotations

import numpy as np

from repro.secagg.bounded.bound import P
from repro.secagg.masks import WordSource, chacha20_words

# 4,096 elements below 2³¹ sum up below 2⁵³: the float64 products are exact.
_COLUMNS = 4096


def project(key: bytes, rows: int, vectors: np.ndarray) -> np.ndarray:
    """(n, P) field elements -> (n, rows) uint64 field elements. key: 32 bytes."""
    count, length = vectors.shape
    total = np.zeros((count, rows), np.int64)
    fill = chacha20_words(key)
    for start in range(0, length, _COLUMNS):
        block = vectors[:, start : start + _COLUMNS].astype(np.float64)
        matrix = _entries(fill, rows)[:, : block.shape[1]]
        total += (block @ matrix.T).astype(np.int64)
        total %= P
    return total.astype(np.uint64)


def _entries(fill: WordSource, rows: int) -> np.ndarray:
    """(rows, _COLUMNS): the difference of two bits of the key stream, 0 with ½, ±1 with ¼."""
    drawn = np.empty((2, rows * _COLUMNS // 32), np.uint32)
    fill(drawn[0])
    fill(drawn[1])
    first, second = (np.unpackbits(bits.view(np.uint8)).view(np.int8) for bits in drawn)
    first -= second
    return first.reshape(rows, _COLUMNS).astype(np.float64)
