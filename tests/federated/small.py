"""A data set and settings small enough for a test to train on in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repro.data import Dataset, Split
from repro.federated import checkpoint, rounds
from repro.federated.division import subset
from repro.federated.execute import assemble, execute
from repro.federated.parallel.ranks import Ranks
from repro.randomness import RootSeed
from repro.runs.arms import get_arm
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES
from repro.runs.record import RunRecord
from repro.runs.settings import RunSettings
from repro.runs.store import RunStore


def small_dataset(records: int = 160, classes: int = 4) -> Dataset:
    """Noisy stripes whose direction and period are the class: learnable, made in no time."""
    stream = np.random.default_rng(5)

    def split(count: int) -> Split:
        labels = stream.integers(0, classes, count)
        row, column = np.mgrid[:28, :28]
        waves = [np.sin(2 * np.pi * axis / period) for period in (4, 9) for axis in (row, column)]
        images = 110 + 70 * np.stack(waves)[labels % 4][..., None]
        images = images + stream.integers(-40, 40, (count, 28, 28, 3))
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    return Dataset(
        name="bloodmnist",
        title="BloodMNIST",
        origin="synthetic",
        md5="0" * 32,
        class_names=tuple(f"class {i}" for i in range(classes)),
        channels=3,
        train=split(16 * records),  # the smoke profile takes every 16th
        val=split(16),
        test=split(16 * 48),
    )


def small_file(folder: Path) -> Path:
    """``small_dataset`` as a file in ``folder``: a process reads it in no time, whereas the
    synthetic stand-in costs it two seconds to draw and four times the training."""
    path = folder / "small.npz"
    if not path.exists():
        dataset, arrays = small_dataset(), {}
        for name in ("train", "val", "test"):
            split = getattr(dataset, name)
            arrays[f"{name}_images"] = split.images
            arrays[f"{name}_labels"] = split.labels[:, None].astype(np.uint8)
        np.savez(path, **arrays)
    return path


def small_settings(
    arm: str = "fedavg", *, hospitals: int = 3, seed: int | None = 0, rounds: int = 2
) -> RunSettings:
    return compose(get_arm(arm), PROFILES["smoke"], hospitals=hospitals, seed=seed, rounds=rounds)


def run(settings: RunSettings, dataset: Dataset, folder: Path, **more: int) -> RunRecord:
    """On the CPU, kept in ``folder``."""
    return execute(settings, dataset, RunStore(folder), device="cpu", quiet=True, **more)


def assembled(settings: RunSettings, dataset: Dataset, seed: RootSeed):
    """The federation of such a run, before its first round."""
    data = subset(dataset, settings)
    return assemble(settings, data, seed=seed, device="cpu", ranks=Ranks())


def cut_short(settings: RunSettings, dataset: Dataset, folder: Path, after: int) -> None:
    """A run that is stopped right after the checkpoint of round ``after``."""

    def stopping(place, state):
        checkpoint.save_checkpoint(place, state)
        if state["round"] == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "save_checkpoint", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(settings, dataset, folder)


def stated(record: RunRecord) -> dict[str, float]:
    """View -> ε of a record, for adding or removing it."""
    kept = [r for r in record.privacy if (r["unit"], r["relation"]) == ("record", "add_remove")]
    return {row["view"]: row["epsilon_total"] for row in kept}
