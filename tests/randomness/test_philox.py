"""Philox4x32-10 against Random123's known-answer vectors, on every array type."""

import numpy as np
import pytest
import torch

from repro.randomness import philox4x32

# Random123 `kat_vectors`, lines "philox4x32 10": counter (4 words), key (2 words), result.
KNOWN_ANSWERS = [
    (
        (0x00000000,) * 4,
        (0x00000000,) * 2,
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda word: word,
        lambda word: np.array([word], dtype=np.int64),
        lambda word: np.array([word], dtype=np.uint64),
        lambda word: torch.tensor(word, dtype=torch.int64),
    ],
    ids=["int", "numpy-int64", "numpy-uint64", "torch-int64"],
)
def test_known_answers(counter, key, expected, wrap):
    words = philox4x32(tuple(wrap(word) for word in counter), key)
    assert tuple(int(np.asarray(word).reshape(())) for word in words) == expected
