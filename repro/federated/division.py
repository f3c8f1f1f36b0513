"""Which images a run uses, and who holds them: all that follows from settings and labels alone."""

from __future__ import annotations

import numpy as np

from repro.data import Dataset, Split, partition
from repro.data.hospitals import HospitalRecords
from repro.errors import InputError
from repro.runs.settings import RunSettings


def subset(dataset: Dataset, settings: RunSettings) -> dict[str, Split]:
    """The train and test images the profile asks for: every n-th, in stored order."""
    return {
        "train": _every(dataset.train, settings.train_stride),
        "test": _every(dataset.test, settings.test_stride),
    }


def _every(split: Split, stride: int) -> Split:
    return Split(split.images[::stride], split.labels[::stride])


def hospital_records(settings: RunSettings, labels: np.ndarray) -> list[HospitalRecords]:
    """Who holds which images of the train split."""
    return partition(
        labels,
        settings.hospitals,
        settings.partition.scheme,
        seed=settings.seed or 0,
        alpha=settings.partition.alpha,
        exponent=settings.partition.exponent,
        validation_fraction=settings.partition.validation_fraction,
    )


def shares(settings: RunSettings, labels: np.ndarray) -> dict[int, np.ndarray]:
    """hospital → positions of its training images in the train split, for this run's scope."""
    records = hospital_records(settings, labels)
    training = {hospital: record.train for hospital, record in enumerate(records)}
    if settings.scope == "pooled":
        return {0: np.sort(np.concatenate(list(training.values())))}
    if settings.scope == "single":
        alone = (settings.seed or 0) % settings.hospitals
        return {alone: training[alone]}
    return training


def held_out(settings: RunSettings, labels: np.ndarray) -> dict[int, np.ndarray]:
    """hospital → positions in the train split of the images it holds out, where trials of a
    private search are scored on them; else nothing."""
    if settings.search is None:
        return {}
    records = hospital_records(settings, labels)
    return {hospital: record.validation for hospital, record in enumerate(records)}


def judged_on(settings: RunSettings, data: dict[str, Split]) -> Split:
    """The images a run is evaluated on: the test split, or every hospital's validation images."""
    if settings.evaluate_on == "test":
        return data["test"]
    train = data["train"]
    records = hospital_records(settings, train.labels)
    held_out = np.sort(np.concatenate([record.validation for record in records]))
    return Split(train.images[held_out], train.labels[held_out])


def class_count(train: Split, test: Split, known: int | None = None) -> int:
    """The data set's own number of classes, whether or not each of them occurs.

    known: None where nobody says; then classes are numbered from 0 and the largest occurs.
    Where an image may have several labels, their number.
    """
    if train.labels.ndim == 2:  # one column a label
        return int(train.labels.shape[1])
    seen = int(max(train.labels.max(), test.labels.max())) + 1
    if known is not None and known < seen:
        raise InputError("labels", seen - 1, f"below {known}, the data set's number of classes")
    return seen if known is None else known
