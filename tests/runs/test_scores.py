"""Scores kept beside a record: every probability and every decision comes back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro.errors import InputError
from repro.runs import RunStore, scores
from tests.report import fake


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 30.0, 1e5, 1e30]))
def test_probabilities_and_decisions_come_back(seed, scale):
    """float16 keeps 11 bits: a log-odds of −20 is off by 0.008 at most."""
    logits = scale * np.random.default_rng(seed).standard_normal((40, 8)).astype(np.float32)
    found = scores.unpack(scores.pack(logits))
    np.testing.assert_allclose(softmax(found.astype(float)), softmax(logits.astype(float)),
                               rtol=0.02, atol=1e-6)  # fmt: skip
    gaps = np.sort(logits.astype(float), axis=1)
    clear = gaps[:, -1] - gaps[:, -2] > 1e-6
    np.testing.assert_array_equal(found.argmax(1)[clear], logits.argmax(1)[clear])


def test_the_same_scores_are_the_same_bytes_and_few():
    logits = np.random.default_rng(0).standard_normal((3421, 8)).astype(np.float32)
    assert scores.pack(logits) == scores.pack(logits)
    assert len(scores.pack(logits)) < 100_000


@pytest.mark.parametrize("content", [b"", b"no gzip", scores.pack(np.ones((2, 3)))[:-9]])
def test_what_is_damaged_is_refused(content):
    with pytest.raises(InputError, match="scores"):
        scores.unpack(content)


def test_the_store_keeps_them_beside_the_record(tmp_path):
    store, run = RunStore(tmp_path), fake.record("fedavg", 10, 0)
    store.save(run)
    assert store.scores(run.run_id) is None
    store.save(run, np.eye(3, 8, dtype=np.float32))
    np.testing.assert_array_equal(store.scores(run.run_id).argmax(1), [0, 1, 2])
