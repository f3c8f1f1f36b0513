"""The run-time checks of annotations that every test runs under (``tests/checked.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jaxtyping
import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from repro.accounting.pld.convert import epsilon_of
from repro.files import write_whole
from repro.privacy import Clipping
from repro.privacy.engines.base import ClippedSum
from repro.privacy.noise import normals_from_words
from repro.shapes import Float
from tests.checked import checked

if TYPE_CHECKING:
    from nowhere import Unknown


@checked
def shortened(values: Float[np.ndarray, " n"], by: int) -> Float[np.ndarray, " n"]:
    """Each call has an n of its own, also one inside another."""
    return shortened(values[by:], 0) if by else values


@checked
def of_unknown(values: Float[np.ndarray, " n"], other: Unknown, *, times: int = 1) -> int:
    return len(values) * times


@checked
@dataclass(frozen=True)
class Pair:
    one: Float[np.ndarray, " n"]
    other: Float[np.ndarray, " n"]


WRONG = {
    "shape": lambda: normals_from_words(torch.zeros(3, 5, dtype=torch.int64)),
    "type of numbers": lambda: normals_from_words(torch.zeros(3, 4)),
    "shape, of a method": lambda: Clipping(1.0).factors(torch.zeros(3)),
    "no shape": lambda: write_whole(7, "text"),
    "field of a dataclass": lambda: ClippedSum([0.0], torch.zeros(1), 0, 0),
    "two arguments together": lambda: epsilon_of(np.zeros(3), np.zeros(4), 0.1),
    "two fields together": lambda: Pair(np.zeros(3), np.zeros(4)),
    "result beside an argument": lambda: shortened(np.zeros(3), 1),
    "beside a name that is not there": lambda: of_unknown(np.zeros(3), "?", times="2"),
    "shape, beside one": lambda: of_unknown(np.zeros((3, 3)), "?"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_an_annotation_excludes_is_noticed(what):
    with pytest.raises((jaxtyping.TypeCheckError, BeartypeCallHintViolation)):
        WRONG[what]()


def test_what_it_allows_is_let_through():
    assert len(shortened(np.zeros(3), 0)) == 3
    assert of_unknown(np.zeros(3), "anything", times=2) == 6
    assert len(Pair(np.zeros(3), np.zeros(3)).other) == 3
