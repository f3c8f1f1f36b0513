"""A data set as the files of K hospitals, to try a federation with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from repro.data import Dataset, Split
from repro.federated.division import shares, subset
from repro.runs.settings import RunSettings


def split_files(dataset: Dataset, settings: RunSettings, folder: Path) -> dict[str, int]:
    """``hospital-0.npz`` …, each the images that this hospital trains on in ``repro run`` of the
    same settings, and ``test.npz``; file name -> images in it."""
    folder.mkdir(parents=True, exist_ok=True)
    data = subset(dataset, settings)
    train, written = data["train"], {"test.npz": data["test"]}
    for one, positions in shares(settings, train.labels).items():
        written[f"hospital-{one}.npz"] = Split(train.images[positions], train.labels[positions])
    for name, part in written.items():
        kind = "test" if name == "test.npz" else "train"
        labels = part.labels.astype(np.uint8)
        arrays = {f"{kind}_images": _stored(part.images), f"{kind}_labels": labels}
        np.savez_compressed(folder / name, **arrays)  # type: ignore[arg-type]
    return {name: len(part) for name, part in sorted(written.items())}


def _stored(images: np.ndarray) -> np.ndarray:
    """As MedMNIST stores them: grey images have no channel axis."""
    return images[..., 0] if images.shape[-1] == 1 else images
