"""Other people's methods: one file each, run as it is on the train split, all in one place.

The file has a ``NAME`` and a function

    fit(train_images, train_labels, epsilon, delta, seed, classes) -> predict, events

train_images: (N, S, S, C) uint8; train_labels: (N,) int64, or (N, classes) of 0 and 1 where an
image may have several labels. predict: (M, S, S, C) uint8 -> (M, classes) scores, of which the
largest is the class (above 0: the label is there). events: {privacy event: how often}, what
training released of the records, as ``repro.accounting`` names it: our accountant makes ε of
that, for a record added or removed, and a fit whose events amount to more than ``epsilon`` is
refused. That it did nothing else with the records is its author's word, and the page says so.
docs/benchmark.md has an example.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repro.accounting import EpsilonBound, PrivacyEvent, compose_epsilon
from repro.accounting.checks import ADD_REMOVE, RECORD
from repro.benchmark.measures import confusion_of, mean_auc
from repro.data import Dataset
from repro.errors import InputError
from repro.files import write_whole
from repro.formatting import to_json
from repro.runs import scores

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Entry:
    """A method of somebody's. digest: of its file, so that a changed one is run again."""

    name: str
    fit: Callable[..., tuple[Callable[[np.ndarray], np.ndarray], Mapping[PrivacyEvent, int]]]
    digest: str


def load_entry(path: str | Path) -> Entry:
    """The method in the Python file ``path``; InputError for a file that is none."""
    file = Path(path)
    if not file.is_file():
        raise InputError("method", str(path), "a Python file with NAME and fit")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:10]
    spec = importlib.util.spec_from_file_location(f"benchmark_entry_{digest}", file)
    if spec is None or spec.loader is None:
        raise InputError("method", str(path), "a Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise InputError("method", str(path), f"a file that loads, but {problem}") from problem
    name, fit = getattr(module, "NAME", None), getattr(module, "fit", None)
    if not isinstance(name, str) or not name or not callable(fit):
        raise InputError("method", str(path), "a file with NAME, a text, and fit, a function")
    return Entry(name, fit, digest)


def result_of(
    entry: Entry, data: Dataset, out: Path, *, epsilon: float, delta: float, seed: int
) -> dict[str, Any]:
    """Train and test ``entry`` once, or read the result of having done so from ``out``.

    A result: seed, epsilon and by which accountant, events, confusion, auc, seconds. Scores of the
    test images lie beside it. Raises InputError for what ``entry`` gives that is not as it should.
    """
    path = _place(entry, data, out, epsilon, seed)
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    started = time.perf_counter()
    try:
        predict, events = entry.fit(
            train_images=data.train.images.copy(),
            train_labels=data.train.labels.copy(),
            epsilon=epsilon,
            delta=delta,
            seed=seed,
            classes=data.num_classes,
        )
        events = dict(events)
        given = np.asarray(predict(data.test.images.copy()), dtype=np.float64)
    except InputError:
        raise
    except Exception as problem:  # whatever somebody's file may do
        said = f"{type(problem).__name__}: {problem}"
        raise InputError("method", entry.name, f"one that fits, but {said}") from problem
    spent = _spent(entry, events, epsilon, delta)
    wanted = (len(data.test), data.num_classes)
    if given.shape != wanted or not np.isfinite(given).all():
        raise InputError("scores", given.shape, f"finite, of shape {wanted}")
    result = {
        "seed": seed,
        "epsilon": spent.epsilon,
        "accountant": spent.accountant,
        "events": [[event.as_dict(), int(count)] for event, count in events.items()],
        "confusion": confusion_of(given, data.test.labels).tolist(),
        "auc": mean_auc(given, data.test.labels),
        "seconds": time.perf_counter() - started,
    }
    packed = scores.pack(given, labels=data.multi_label)
    write_whole(path.with_suffix(".scores.npy.gz"), packed)
    write_whole(path, to_json(result) + "\n")
    return result


def _spent(
    entry: Entry, events: Mapping[PrivacyEvent, int], epsilon: float, delta: float
) -> EpsilonBound:
    """What ``events`` amount to; InputError where there are none or they exceed ``epsilon``."""
    if not events or not all(isinstance(event, PrivacyEvent) for event in events):
        raise InputError("events", list(events), "what was released, as {PrivacyEvent: count}")
    spent = compose_epsilon(events, ADD_REMOVE, RECORD, delta)
    if not spent.epsilon <= epsilon * _ROUNDING:
        found = f"ε = {spent.epsilon:.6g}"
        raise InputError(f"events of {entry.name}", found, f"at most the {epsilon:g} asked for")
    return spent


def scores_of(
    entry: Entry, data: Dataset, out: Path, epsilon: float, seed: int
) -> np.ndarray | None:
    """(M, classes) of a result that there is, else None."""
    path = _place(entry, data, out, epsilon, seed).with_suffix(".scores.npy.gz")
    return scores.unpack(path.read_bytes()) if path.exists() else None


def _place(entry: Entry, data: Dataset, out: Path, epsilon: float, seed: int) -> Path:
    name = f"{entry.digest}-{data.fingerprint[:10]}-eps{epsilon:g}-s{seed}"
    return out / "entries" / f"{name}.json"
