"""benchmark.json: every cell with its numbers, or why it has none, and what differs from what."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from repro.benchmark.entry import Entry, result_of, scores_of
from repro.benchmark.epsilon import epsilon_again
from repro.benchmark.grid import DELTA, NO_FILE, ONE_PLACE, Board, Cell, place_name, where
from repro.benchmark.measures import from_confusion, mean_auc, right
from repro.benchmark.paired import holm, over_images, over_seeds
from repro.data import BLOODMNIST, Dataset
from repro.errors import InputError
from repro.report.evidence import data_kind
from repro.report.statistics import Summary
from repro.runs.guarantees import total_epsilon
from repro.runs.record import RunRecord
from repro.runs.store import RunStore
from repro.version import __version__

FORMAT = 1
CLAIMED = "events as its author states them; what else its code does, nobody here has checked"
DONE, NOT_RUN = "done", "not run"


@dataclass
class Numbers:
    """A cell's results by seed; right: seed -> share of each test image's labels predicted."""

    measures: dict[int, dict[str, float]] = field(default_factory=dict)
    right: dict[int, np.ndarray] = field(default_factory=dict)


def cell_of(cell: Cell, board: Board, stores: Sequence[RunStore]) -> tuple[dict[str, Any], Numbers]:
    """The JSON of a cell of ours, and its numbers. Runs that have ended in the meantime are in
    ``cell.found``; a run whose ε is not found again makes the whole cell count as not run."""
    row = _row(board, cell.method, cell.epsilon, cell.hospitals)
    numbers = Numbers()
    if not cell.found:
        return row | {"status": NOT_RUN, "reason": cell.reason}, numbers
    try:
        privacy = [_privacy(record) for _, record in sorted(cell.found.items())]
    except InputError as problem:
        return row | {"status": NOT_RUN, "reason": str(problem)}, numbers
    for seed, record in sorted(cell.found.items()):
        numbers.measures[seed] = from_confusion(np.array(record.confusion))
        _from_scores(numbers, seed, record, board.data, stores)
    worst = max(privacy, key=lambda one: one["epsilon"])
    arm = cell.arm
    assert arm is not None
    row |= {
        "status": DONE,
        "reason": cell.reason,
        "arm": arm.name,
        **worst,
        "tuned_on_private_images": arm.tuned and _tuned_here(board),
        "public_data": "ImageNet 1K" if arm.package else None,
        "model": arm.family.heading,
        "runs": [cell.found[seed].run_id for seed in sorted(cell.found)],
        "seconds": [cell.found[seed].wall_seconds for seed in sorted(cell.found)],
    }
    return row | _summaries(numbers), numbers


def _row(board: Board, method: str, epsilon: float, hospitals: int) -> dict[str, Any]:
    return {
        "dataset": board.facts.get("name"),
        "fingerprint": board.facts.get("fingerprint"),
        "multi_label": bool(board.facts.get("multi_label")),
        "method": method,
        "epsilon_asked": epsilon,
        "delta": DELTA,
        "hospitals": hospitals,
        "place": place_name(hospitals),
    }


def _tuned_here(board: Board) -> bool:
    """Arms' settings were chosen on BloodMNIST's validation images; other data had no part."""
    cells = board.facts.get("name") == BLOODMNIST.name
    return cells and data_kind(dict(board.facts)) != "synthetic"


def _privacy(record: RunRecord) -> dict[str, Any]:
    """ε again, and whose statement it is: of the largest that rests on no more than the noise."""
    stated = total_epsilon(record, "record")
    row = next(
        one
        for one in record.privacy
        if one["unit"] == "record"
        and one["relation"] != "replace_one"
        and float(one["epsilon_total"]) == stated
    )
    return {
        "epsilon": epsilon_again(record, stated, float(row["delta"])),
        "epsilon_stated": stated,
        "unit": "record",
        "relation": row["relation"],
        "equivalent": row["equivalent"],
        "adversary": row["view"],
        "trust": row["trust"],
        "accountant": row["accountant"],
    }


def _from_scores(
    numbers: Numbers, seed: int, record: RunRecord, data: Dataset | None, stores: Sequence[RunStore]
) -> None:
    """AUC, and which images are right, where the run's scores are kept and labels are at hand."""
    store = where(stores, record)
    if store is None or data is None:
        return
    scores = store.scores(record.run_id)
    labels = data.test.labels[:: record.settings["test_stride"]]
    if scores is None or len(scores) != len(labels):
        return
    _add_scores(numbers, seed, scores, labels)


def _add_scores(numbers: Numbers, seed: int, scores: np.ndarray, labels: np.ndarray) -> None:
    numbers.right[seed] = right(scores, labels)
    area = mean_auc(scores, labels)
    if area is not None:
        numbers.measures[seed]["auc"] = area


def _summaries(numbers: Numbers) -> dict[str, Any]:
    """``n``, ``seeds``, and mean, deviation and values of every measure, fractions."""
    seeds = sorted(numbers.measures)
    names = dict.fromkeys(name for one in numbers.measures.values() for name in one)
    found: dict[str, Any] = {"n": len(seeds), "seeds": seeds}
    for name in names:
        values = [numbers.measures[s][name] for s in seeds if name in numbers.measures[s]]
        summary = Summary.of(values)
        assert summary is not None
        found[name] = {"mean": summary.mean, "sd": summary.deviation, "values": values}
    return found


def entry_cell(
    entry: Entry, board: Board, out: Path, epsilon: float, seeds: Sequence[int]
) -> tuple[dict[str, Any], Numbers]:
    """The JSON of a cell of somebody's method, run now where it has not been run yet."""
    row = _row(board, entry.name, epsilon, ONE_PLACE)
    numbers = Numbers()
    if board.data is None:
        return row | {"status": NOT_RUN, "reason": NO_FILE}, numbers
    spent, seconds = [], []
    try:
        for seed in seeds:
            found = result_of(entry, board.data, out, epsilon=epsilon, delta=DELTA, seed=seed)
            numbers.measures[seed] = from_confusion(np.array(found["confusion"]))
            spent.append((float(found["epsilon"]), str(found["accountant"])))
            seconds.append(found["seconds"])
            scores = scores_of(entry, board.data, out, epsilon, seed)
            if scores is not None:
                _add_scores(numbers, seed, scores, board.data.test.labels)
    except InputError as problem:
        return row | {"status": NOT_RUN, "reason": str(problem)}, Numbers()
    row |= {
        "status": DONE,
        "reason": "",
        "epsilon": max(spent)[0],
        "epsilon_stated": None,
        "unit": "record",
        "relation": "add_remove",
        "equivalent": ["zero_out"],
        "adversary": "public model",
        "trust": CLAIMED,
        "accountant": max(spent)[1],
        "tuned_on_private_images": None,
        "public_data": None,
        "model": entry.name,
        "runs": [],
        "seconds": seconds,
    }
    return row | _summaries(numbers), numbers


def differences(rows: Sequence[tuple[dict[str, Any], Numbers]]) -> list[dict[str, Any]]:
    """Every two methods of one data set, ε and place: over seeds, and over images where both kept
    scores of them for the same seeds. ``p_holm``: adjusted for the pairs of that cell."""
    groups: dict[tuple[Any, ...], list[tuple[dict[str, Any], Numbers]]] = {}
    keys = ("dataset", "fingerprint", "epsilon_asked", "hospitals")
    for row, numbers in rows:
        if row["status"] == DONE:
            groups.setdefault(tuple(row[key] for key in keys), []).append((row, numbers))
    found: list[dict[str, Any]] = []
    for group, members in groups.items():
        pairs = []
        for (one, first), (other, second) in combinations(members, 2):
            seeds = over_seeds(_accuracies(first), _accuracies(second))
            if seeds is not None:
                pair = dict(zip(keys, group, strict=True))
                pair |= {"method": one["method"], "over": other["method"], "seeds": seeds}
                pairs.append(pair | {"images": _images(first, second, seeds["seeds"])})
        adjusted = holm([pair["seeds"]["p"] for pair in pairs])
        for pair, p in zip(pairs, adjusted, strict=True):
            pair["seeds"]["p_holm"] = p
        found += pairs
    return found


def _accuracies(numbers: Numbers) -> dict[int, float]:
    return {seed: one["accuracy"] for seed, one in numbers.measures.items()}


def _images(first: Numbers, second: Numbers, seeds: Sequence[int]) -> dict[str, Any] | None:
    kept = [seed for seed in seeds if seed in first.right and seed in second.right]
    if not kept or first.right[kept[0]].shape != second.right[kept[0]].shape:
        return None
    left, other = (np.stack([one.right[seed] for seed in kept]) for one in (first, second))
    return {"seeds": kept, **over_images(left, other)}


def leaderboard(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cells as claims of the public leaderboard of private image classification
    (private-machinelearning.github.io, of Mokhtari et al. 2026, arXiv 2601.17189): one for each
    data set and kind of public data. Fields that a submission has and a run does not know (name,
    authors, url, code, venue, venue_date) are left empty for its author to fill in."""
    tables: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["status"] != DONE:
            continue
        by_area = row["multi_label"] and "auc" in row
        claim = {
            "model": f"{row['model']}, {row['place']}",
            "epsilon": math.ceil(row["epsilon"] * 1e4) / 1e4,
            "delta": row["delta"],
            "private_accuracy": f"{100 * row['auc' if by_area else 'accuracy']['mean']:.2f}%"
            + " AUC" * by_area,
            "dp_accountant": f"{row['accountant']}, dpresnet-repro {__version__}",
        }
        table = row["dataset"], row["fingerprint"], row["public_data"]
        tables.setdefault(table, []).append(claim)
    empty = dict.fromkeys(("name", "url", "authors", "code", "venue", "venue_date"), "")
    return [
        {
            "dataset": data,
            "fingerprint": fingerprint,
            "public_data": public or "none",
            **empty,
            "claims": claims,
        }
        for (data, fingerprint, public), claims in tables.items()
    ]
