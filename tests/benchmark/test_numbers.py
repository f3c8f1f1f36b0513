"""The benchmark's numbers against other ways to get them."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from scipy import stats

from repro.benchmark.epsilon import epsilon_again
from repro.benchmark.grid import methods
from repro.benchmark.measures import confusion_of, from_confusion, mean_auc, right
from repro.benchmark.paired import holm, over_images, over_seeds
from repro.errors import InputError
from repro.report.claims import PAPER_RESULTS
from repro.runs.guarantees import total_epsilon
from repro.runs.record import RunRecord
from repro.runs.store import RunStore


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    """One of each arm and number of hospitals that the benchmark has, of those on record."""
    arms = {arm.name for found in methods().values() for arm in found.values()}
    stored = RunStore(PAPER_RESULTS, written=False).all()
    first = {(r.arm, r.hospitals): r for r in stored if r.arm in arms and r.profile == "quick"}
    return list(first.values())


def test_epsilon_of_what_is_on_record_is_found_again(records):
    assert len(records) > 20
    for record in records:
        stated = total_epsilon(record, "record")
        sampled = record.settings.get("second_order") is None
        room = 1e-3 if sampled else 1e-6
        assert epsilon_again(record, stated, 1e-5) == pytest.approx(stated, rel=room), record.run_id


def test_a_ledger_that_missed_something_is_refused(records):
    """One step more, one survivor fewer, or less noise than the statement knows of."""
    record = next(r for r in records if r.settings.get("second_order"))
    stated = total_epsilon(record, "record")

    def step(facts):
        facts["steps"] += 1

    def survivor(facts):
        facts["survivors"] -= 1

    def noise(facts):
        facts["plan"]["noise_multiplier"] *= 0.99

    for change in (step, survivor, noise):
        history = copy.deepcopy(record.history)
        change(history[-1]["secagg"])
        changed = RunRecord.from_dict(record.as_dict() | {"history": history})
        with pytest.raises(InputError, match=r"which its rounds amount to|its share of the budget"):
            epsilon_again(changed, stated, 1e-5)


def test_auc_is_the_chance_of_a_right_order():
    """Over all pairs, ties half; a label that nobody has does not count; of classes by softmax."""
    stream = np.random.default_rng(0)
    scores = stream.normal(size=(40, 3)).round(1)
    labels = (stream.random((40, 3)) < 0.3).astype(np.int64)
    labels[:, 2] = 0

    def area(column, truth):
        pairs = itertools.product(column[truth == 1], column[truth == 0])
        return np.mean([0.5 if a == b else float(a > b) for a, b in pairs])

    wanted = np.mean([area(scores[:, i], labels[:, i]) for i in (0, 1)])
    assert mean_auc(scores, labels) == pytest.approx(wanted)
    classes = stream.integers(0, 3, 40)
    scores = stream.normal(size=(40, 3))  # no ties, which rounding would break in its own way
    soft = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert mean_auc(scores, classes) == pytest.approx(mean_auc(soft, np.eye(3, dtype=int)[classes]))
    assert mean_auc(scores, np.zeros((40, 3), np.int64)) is None


def test_measures_of_classes_and_of_labels():
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, -1.0], [-2.0, -1.0]])
    classes = np.array([0, 0, 0, 1])
    found = from_confusion(confusion_of(scores, classes))
    assert found == pytest.approx(
        {"accuracy": 3 / 4, "balanced_accuracy": (2 / 3 + 1) / 2, "worst_recall": 2 / 3}
    )
    assert right(scores, classes).tolist() == [1, 0, 1, 1]
    labels = np.array([[1, 1], [1, 1], [0, 0], [0, 1]])
    assert confusion_of(scores, labels).tolist() == [[2, 1], [2, 3]]
    assert right(scores, labels).tolist() == [1, 0.5, 0.5, 0.5]


def test_paired_tests_are_those_of_scipy():
    stream = np.random.default_rng(1)
    first, second = stream.random((2, 6))
    found = over_seeds(dict(enumerate(first)), dict(enumerate(second)) | {9: 0.5})
    wanted = stats.ttest_rel(first, second)
    assert found["seeds"] == list(range(6))
    assert found["p"] == pytest.approx(wanted.pvalue)
    interval = 100 * np.array(wanted.confidence_interval(0.95))
    np.testing.assert_allclose(found["interval"], interval)
    assert over_seeds({0: 0.5}, {1: 0.5}) is None
    assert over_seeds({0: 0.75}, {0: 0.5})["p"] is None

    left, other = (stream.random((2, 3, 400)) < 0.9).astype(float)
    images = over_images(left, other)
    each = 100 * (left - other).mean(axis=0)
    wanted = stats.norm.interval(0.95, each.mean(), stats.sem(each))
    np.testing.assert_allclose(images["interval"], wanted, rtol=1e-6)
    assert images["p"] == pytest.approx(2 * stats.norm.sf(abs(each.mean()) / stats.sem(each)))


def test_holm_by_hand():
    """Holm 1979: the smallest times how many, then the next times one fewer, never decreasing."""
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
