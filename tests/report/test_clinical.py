"""Clinical measures against scikit-learn and plain loops; paired tests by their false alarms."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from repro.errors import InputError
from repro.report import clinical
from repro.report.items.table9_clinical import build, clinical_finding, judged
from repro.report.sources import Sources
from repro.runs import RunStore
from tests.report import fake


@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.booleans())
def test_against_scikit_learn(seed, classes, coarse):
    """AUC too where many probabilities are equal; a class that is never said has an F1 of 0."""
    # Here: it loads pandas too, three seconds that no other test needs.
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, roc_auc_score

    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, 60)])
    shares = clinical.probabilities(random.standard_normal((len(labels), classes)) * 3)
    shares = np.round(shares, 1) if coarse else shares
    wanted = [roc_auc_score(labels == c, shares[:, c]) for c in range(classes)]
    np.testing.assert_allclose(clinical.auc(shares, labels), wanted, rtol=1e-12)
    said = shares.argmax(axis=1)
    table = confusion_matrix(labels, said, labels=np.arange(classes)).tolist()
    assert clinical.balanced_accuracy(table) == pytest.approx(
        balanced_accuracy_score(labels, said), rel=1e-12
    )
    assert clinical.macro_f1(table) == pytest.approx(
        f1_score(labels, said, average="macro", zero_division=0), rel=1e-12
    )


def test_classes_that_are_not_there():
    shares, labels = np.array([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]), np.array([0, 1])
    found = clinical.auc(shares, labels)
    assert found[:2].tolist() == [1.0, 1.0]
    assert math.isnan(found[2])
    table = [[3, 1, 0], [0, 0, 0], [0, 2, 2]]
    assert clinical.balanced_accuracy(table) == (0.75 + 0.5) / 2
    assert clinical.macro_f1(table) == pytest.approx((6 / 7 + 4 / 6) / 2)
    assert clinical.worst_class([table, [[4, 0, 0], [0, 0, 0], [0, 0, 4]]]) == (2, 0.75)


def test_calibration_error_by_hand_and_for_a_calibrated_model():
    """Two bins by hand: 0.9, 0.9 with one right, 0.6 right. And 40,000 images that are right as
    often as they say: mean ECE below 15 · √(1/4 ÷ images of a bin) by far."""
    shares = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    labels = np.array([0, 1, 1])
    assert clinical.calibration_error(shares, labels) == pytest.approx((0.8 + 0.4) / 3)
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 40_000)
    right = random.random(40_000) < confidence
    two = np.stack([confidence, 1 - confidence], axis=1)
    assert clinical.calibration_error(two, np.where(right, 0, 1)) < 0.015
    assert clinical.calibration_error(two, np.zeros(40_000, dtype=int)) > 0.2


@pytest.mark.parametrize(("right", "of"), [(0, 29), (7, 9), (88, 100), (100, 100)])
def test_wilsons_interval(right, of):
    wanted = binomtest(right, of).proportion_ci(method="wilson")
    assert clinical.wilson(right / of, of) == pytest.approx(tuple(wanted), abs=1e-12)


def test_paired_tests_raise_few_false_alarms_and_find_what_is_there():
    """Two arms equal on average, with images that are hard for both, seeds that are good or bad
    for one arm only: at 5 % the share of false alarms in 2,000 is at most 6.5 % (were the rate
    exactly 5 %, more by chance 1 in 1,000), where images alone would cry wolf far more often."""
    random = np.random.default_rng(1)
    alarms = alone = 0
    for _ in range(2000):
        image = random.normal(1, 1, 300)
        seed = random.normal(0, 0.3, (2, 3, 1))
        right = image + seed + random.normal(0, 0.5, (2, 3, 300)) > 0
        alarms += clinical.paired(right[0], right[1]).p < 0.05
        alone += clinical.paired(right[0][:1], right[1][:1]).p < 0.05
    assert alarms <= 130
    assert alone > 200
    better = np.ones((3, 300), dtype=bool)
    worse = better.copy()
    worse[:, :15] = False
    found = clinical.paired(better, worse)
    assert found.mean == found.first_only == pytest.approx(0.05)
    assert found.second_only == 0
    assert found.interval[0] > 0
    assert found.p < 0.001


def test_one_seed_is_a_paired_t_test_over_images():
    from scipy.stats import ttest_rel

    random = np.random.default_rng(2)
    first, second = random.random((2, 1, 80)) < [[[0.9]], [[0.8]]]
    wanted = ttest_rel(first[0].astype(float), second[0].astype(float))
    found = clinical.paired(first, second)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-12)
    assert found.interval == pytest.approx(tuple(wanted.confidence_interval(0.95)), rel=1e-9)
    assert clinical.paired(first, first).p == 1.0


def logits_of(record):
    """(logits, labels) whose decisions give the record's confusion matrix."""
    cells = [(i, j) for i, row in enumerate(record.confusion) for j, n in enumerate(row)
             for _ in range(n)]  # fmt: skip
    labels, said = np.array(cells).T
    return 4 * np.eye(len(record.confusion), dtype=np.float32)[said], labels


ARM, OTHER = "scattering-shared-eps6", "scattering-newton-eps6"


def store_with_scores(root):
    """Fake runs of two arms, the test split's labels kept whole (their stride is 1)."""
    store = fake.store(root, [ARM, OTHER, "fedavg"])
    for record in store.all():
        if record.arm in (ARM, OTHER):
            logits, labels = logits_of(record)
            store.save(record, logits)
            store.save_labels("fake-synthetic", labels)
    return store


def test_table_9_from_kept_scores(tmp_path):
    store_with_scores(tmp_path)
    sources = Sources.of(tmp_path)
    first = judged(sources)[0]
    assert first.arm.name == ARM  # the better of the two
    measures, recall, tests = build(sources)
    row = measures.rows[0]
    assert (row["arm"], row["hospitals"], row["n"]) == (ARM, "10", "3")
    assert 80 < float(row["auc"].split()[0]) < 100
    assert all(row["arm"] != "fedavg" for row in measures.rows)  # neither kept nor in the answer
    assert "[" in recall.rows[0]["c0"]
    assert tests.rows[0]["against"] == OTHER
    assert tests.rows[0]["n"] == "3 × 341"
    assert float(tests.rows[0]["points"]) > 5
    ((_, said),) = clinical_finding(sources)
    assert f"of {ARM}" in said
    assert f"AUC {float(row['auc'].split()[0]):.1f} / " in said


def test_scores_of_some_seeds_and_scores_that_do_not_fit(tmp_path):
    """Fewer seeds are said; labels in another order are refused, never measured by."""
    store = store_with_scores(tmp_path)
    runs = [run for run in store.all() if (run.arm, run.hospitals) == (ARM, 10)]
    (store.folder(runs[0].run_id) / "scores.npy.gz").unlink()
    row = build(Sources.of(tmp_path))[0].rows[0]
    assert "(2 of 3 seeds)" in row["auc"]
    assert "seeds" not in row["balanced"]
    store.save(runs[1], logits_of(runs[1])[0][::-1])
    with pytest.raises(InputError, match="confusion"):
        build(Sources.of(tmp_path))


def test_every_nth_image_is_judged_by_its_own_label(tmp_path):
    store, labels = RunStore(tmp_path), np.arange(12) % 4
    run = fake.record("fedavg", 10, 0)
    settings = run.settings | {"test_stride": 3}
    confusion = np.diag(np.bincount(labels[::3], minlength=4)).tolist()
    store.save(dataclasses.replace(run, settings=settings, confusion=confusion),
               np.eye(4, dtype=np.float32)[labels[::3]])  # fmt: skip
    store.save_labels("fake-synthetic", labels)
    (kept,) = store.all()
    sources = Sources.of(tmp_path)
    np.testing.assert_array_equal(sources.scores(kept)[1], labels[::3])
