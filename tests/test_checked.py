"""The run-time checks of annotations that every test runs under (``tests/checked.py``)."""

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from repro.files import write_whole
from repro.privacy import Clipping
from repro.privacy.engines.base import ClippedSum
from repro.privacy.noise import normals_from_words

WRONG = {
    "shape": lambda: normals_from_words(torch.zeros(3, 5, dtype=torch.int64)),
    "type of numbers": lambda: normals_from_words(torch.zeros(3, 4)),
    "shape, of a method": lambda: Clipping(1.0).factors(torch.zeros(3)),
    "no shape": lambda: write_whole(7, "text"),
    "field of a dataclass": lambda: ClippedSum([0.0], torch.zeros(1), 0, 0),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_an_annotation_excludes_is_noticed(what):
    with pytest.raises((jaxtyping.TypeCheckError, BeartypeCallHintViolation)):
        WRONG[what]()
