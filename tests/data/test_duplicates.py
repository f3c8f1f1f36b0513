"""Images stored twice are found wherever they lie, and a run's record and ε say so."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from repro.cli import main
from repro.data import Split
from repro.data.duplicates import SharedImages, find_duplicates, shared_images
from repro.errors import InputError
from repro.federated import evaluation, rounds
from repro.federated.division import class_count
from repro.federated.evaluation import Diverged, Evaluation, check_finite
from repro.runs.store import RunStore
from tests.data.files import save, small_arrays
from tests.federated.small import run, small_dataset, small_settings


def with_copies(dataset, *copies):
    """``copies``: (from split, position, to split, position)."""
    parts = {name: getattr(dataset, name) for name in ("train", "val", "test")}
    images = {name: part.images.copy() for name, part in parts.items()}
    for source, i, target, j in copies:
        images[target][j] = images[source][i]
    return dataclasses.replace(
        dataset, **{name: Split(images[name], parts[name].labels) for name in parts}
    )


PLAIN = small_dataset()


def test_nothing_is_found_where_nothing_is():
    assert set(vars(find_duplicates(PLAIN)).values()) == {0}


def test_every_kind_of_copy_is_counted_once():
    labels = PLAIN.train.labels
    other = int(np.flatnonzero(labels != labels[0])[0])
    dataset = with_copies(
        PLAIN,
        ("train", 0, "train", other),  # with another label
        ("train", 0, "train", other + 1),  # a third copy is no second image
        ("train", 700, "test", 3),
        ("train", 701, "val", 3),
        ("test", 5, "test", 6),
    )
    found = find_duplicates(dataset)
    assert (found.images, found.train_and_test, found.train_and_validation) == (4, 1, 1)
    assert found.other_labels >= 1


def test_one_byte_makes_two_images():
    dataset = with_copies(PLAIN, ("train", 0, "train", 1))
    dataset.train.images[1, 27, 27, 2] ^= 1
    assert find_duplicates(dataset).images == 0


def test_holders_of_one_image_are_counted():
    dataset = with_copies(PLAIN, ("train", 0, "train", 10), ("train", 0, "train", 20))
    holders = {0: np.arange(0, 5), 1: np.arange(5, 15), 2: np.arange(15, 25)}
    assert shared_images(dataset.train.images, holders) == SharedImages(1, 3, 3)
    together = {0: np.arange(25)}
    assert shared_images(dataset.train.images, together) == SharedImages(0, 1, 3)


def test_partition_says_so(tmp_path, capsys):
    arrays = small_arrays()
    arrays["train_images"][-1] = arrays["train_images"][0]
    path = save(tmp_path / "b.npz", arrays)
    words = ["partition", "--hospitals", "2", "--data", str(path)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["duplicates"]
    assert found["stored"]["images"] >= 1
    assert found["held"]["in_several_hospitals"] >= 1
    assert main(words) == 0
    assert "in two hospitals or more" in capsys.readouterr().out


def test_the_record_and_its_privacy_say_so(tmp_path, no_last_look):
    """The smoke profile takes every 16th image; all of the first and the last have a copy."""
    last = len(PLAIN.train) - 16
    dataset = with_copies(PLAIN, *(("train", 16 * i, "train", last - 16 * i) for i in range(40)))
    settings = small_settings("dpsgd-eps6", rounds=1)
    record = run(settings, dataset, tmp_path)
    held = record.dataset["duplicates"]["held"]
    assert held["in_several_hospitals"] > 0
    for row in record.privacy:
        said = any("sum over its copies" in warning for warning in row["warnings"])
        assert said == (row["unit"] == "record")


def test_a_class_that_is_missing_still_counts():
    few = Split(PLAIN.train.images, np.zeros_like(PLAIN.train.labels))
    assert class_count(few, few, known=8) == 8
    assert class_count(few, few) == 1
    with pytest.raises(InputError, match="labels: got 3; expected below 2"):
        class_count(PLAIN.train, PLAIN.test, known=2)


def test_a_run_without_a_class_keeps_the_data_sets_classes(tmp_path):
    fewer = {
        name: Split(part.images, part.labels % 3)
        for name, part in (("train", PLAIN.train), ("test", PLAIN.test))
    }
    dataset = dataclasses.replace(PLAIN, **fewer)
    record = run(small_settings(rounds=1), dataset, tmp_path)
    assert len(record.confusion) == dataset.num_classes == 4


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_diverged_model_is_an_error_and_no_accuracy(loss):
    with pytest.raises(Diverged, match="loss after round 3"):
        check_finite(
            Evaluation(loss, 0.125, torch.zeros(2, 2, dtype=torch.int64), torch.zeros(1, 2)), 3
        )


def test_a_run_that_diverges_stops_with_one_line(tmp_path, monkeypatch):
    """Its loss is made NaN by hand after round 1; no record is left."""

    def evaluated(model, *arguments):
        found = evaluation.evaluate(model, *arguments)
        calls.append(found)
        return found if len(calls) == 1 else dataclasses.replace(found, loss=float("nan"))

    calls = []
    monkeypatch.setattr(rounds, "evaluate", evaluated)
    with pytest.raises(Diverged, match=r"loss after round 1: got nan; .* diverged"):
        run(small_settings(rounds=2), PLAIN, tmp_path)
    assert RunStore(tmp_path).all() == []
