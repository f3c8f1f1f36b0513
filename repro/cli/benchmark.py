"""``repro benchmark``: data set × ε × place × method, what is missing run, one page and one JSON.

Finished runs are kept, so the same command may be given again at any time. ``--list`` runs nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.cli.output import Outcome, say
from repro.cli.run import add_device
from repro.errors import InputError
from repro.runs.profiles import PROFILES, Profile, get_profile
from repro.runs.store import RunStore

if TYPE_CHECKING:
    from repro.benchmark.entry import Entry
    from repro.benchmark.grid import Board, Cell
    from repro.data import Dataset

RECORD = "paper_results"  # where finished runs may lie beside --out


def configure(parser: argparse.ArgumentParser) -> None:
    from repro.runs.arm import EPSILONS

    add = parser.add_argument
    files = (
        "MedMNIST files, 2D, any size, one label or several (the file's name tells the set, "
        "unless NAME= does), or synthetic; default: only what is on record"
    )
    add("--data", nargs="+", default=[], metavar="[NAME=]FILE", help=files)
    methods = "methods, i.e. arms without their ε (default: those that have one at every ε)"
    add("--arms", nargs="+", default=[], metavar="A", help=methods)
    own = "your own, one Python file each"
    add("--method", nargs="+", default=[], metavar="FILE", help=own)
    wanted = list(EPSILONS)
    add("--epsilon", nargs="+", type=float, default=wanted, metavar="E", help="1 3 6 8")
    places = "1: all images in one trusted place (default 1 10 20)"
    add("--hospitals", nargs="+", type=int, default=[1, 10, 20], metavar="K", help=places)
    add("--seeds", nargs="+", default=["0-4"], metavar="S", help="0-4, or 0 1 2")
    add("--profile", default="quick", metavar="P", help=f"{', '.join(PROFILES)} (default quick)")
    add("--record", metavar="DIR", help=f"also read finished runs there (default: ./{RECORD})")
    add("--out", default="benchmark", metavar="DIR", help="runs and results (default: benchmark)")
    listing = "what there is, what would run, how long; run nothing"
    add("--list", action="store_true", help=listing)
    add_device(parser)


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.benchmark.entry import load_entry
    from repro.benchmark.grid import boards, chosen_methods
    from repro.federated.parallel.preflight import check_device, check_synthetic

    profile = get_profile(arguments.profile)
    seeds = _seeds(arguments.seeds)
    own = list(dict.fromkeys(arguments.epsilon))
    entries = [load_entry(path) for path in arguments.method]
    names = chosen_methods(arguments.arms)
    device = check_device(arguments.device)
    datasets = [_dataset(word) for word in arguments.data]
    for dataset, word in zip(datasets, arguments.data, strict=True):
        check_synthetic(dataset, profile, word)
    stores = _stores(arguments)
    found = boards(
        datasets,
        stores,
        profile,
        names=names,
        epsilons=own,
        hospitals=list(dict.fromkeys(arguments.hospitals)),
        seeds=seeds,
    )
    if arguments.list:
        return _listing(found, entries, stores, seeds)
    _run(found, stores[0], device)
    document = _document(found, entries, stores, profile, seeds, own, Path(arguments.out))
    return _written(document, Path(arguments.out))


def _seeds(words: Sequence[str]) -> list[int]:
    found: list[int] = []
    try:
        for word in words:
            first, _, last = word.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        raise InputError("seeds", " ".join(words), "numbers, or ranges as 0-4") from None
    if not found:
        raise InputError("seeds", " ".join(words), "at least one")
    return list(dict.fromkeys(found))


def _dataset(word: str) -> Dataset:
    """The data set of ``NAME=FILE``, or of a file named as MedMNIST names it; or the stand-in."""
    from repro.data import BLOODMNIST, load_dataset

    name, _, path = word.rpartition("=")
    if word == "synthetic":
        return load_dataset(word)
    name = name or Path(path).stem.lower().partition("_")[0]
    if not name.endswith("mnist"):
        example = f"{BLOODMNIST.name}={path}"
        raise InputError("data", word, f"the set's name in the file's, or before it: {example}")
    return load_dataset(path, name)


def _stores(arguments: argparse.Namespace) -> list[RunStore]:
    """Where runs are made, and where finished ones are read beside it."""
    record = arguments.record or (RECORD if Path(RECORD, "runs").is_dir() else None)
    if arguments.record and not Path(arguments.record, "runs").is_dir():
        raise InputError("record", arguments.record, "a folder with runs in its folder runs")
    stores = [RunStore(arguments.out, written=not arguments.list)]
    return stores + ([RunStore(record, written=False)] if record else [])


def _listing(
    found: Sequence[Board], entries: Sequence[Entry], stores: Sequence[RunStore], seeds: list[int]
) -> Outcome:
    from repro.benchmark.grid import cost, place_name

    known = [record for store in stores for record in store.all()]
    rows, total, unknown = [], 0.0, 0
    for board in found:
        for cell in board.cells:
            seconds = cost(cell, known)
            rows.append(_listed(board, cell, seconds))
            total += seconds or 0.0
            unknown += len(cell.runs) if seconds is None else 0
    missing = sum(len(row["missing"]) for row in rows)
    lines = [
        f"{row['dataset']}: {row['method']}, ε = {row['epsilon']:g}, "
        f"{place_name(row['hospitals'])}: {len(row['on_record'])} on record, "
        + (f"{len(row['missing'])} to run" if row["missing"] else row["reason"] or "none to run")
        for row in rows
    ]
    lines.append(
        f"{missing} runs to make, about {total / 60:.0f} minutes one after another (median of like "
        f"runs on record; {unknown} without any), and features once for every data set and model"
    )
    if entries:
        files = ", ".join(entry.name for entry in entries)
        lines.append(f"and {len(seeds)} seeds at each ε on each data set of: {files}")
    return Outcome(
        {"cells": rows, "missing": missing, "seconds": total, "not_estimated": unknown},
        "\n".join(lines),
    )


def _listed(board: Board, cell: Cell, seconds: float | None) -> dict[str, Any]:
    return {
        "dataset": board.facts.get("name"),
        "method": cell.method,
        "epsilon": cell.epsilon,
        "hospitals": cell.hospitals,
        "on_record": sorted(cell.found),
        "missing": sorted(cell.runs),
        "seconds": seconds,
        "reason": cell.reason,
    }


def _run(found: Sequence[Board], store: RunStore, device: str | None) -> None:
    """Every missing run, cell by cell; what a cell is refused for becomes its reason."""
    from repro.benchmark.grid import place_name
    from repro.federated.parallel.campaign import run_all

    todo = [(board, cell) for board in found for cell in board.cells if cell.runs]
    for number, (board, cell) in enumerate(todo, start=1):
        assert board.data is not None
        title = (
            f"{number}/{len(todo)} {cell.method} ε={cell.epsilon:g} {place_name(cell.hospitals)}"
        )
        try:
            made = run_all(list(cell.runs.values()), board.data, store, device=device, title=title)
        except InputError as problem:
            cell.reason = str(problem)
            say(f"repro benchmark: {title}: not run: {problem}")
            continue
        cell.found |= dict(zip(cell.runs, made, strict=True))
        cell.runs = {}


def _document(
    found: Sequence[Board],
    entries: Sequence[Entry],
    stores: Sequence[RunStore],
    profile: Profile,
    seeds: list[int],
    epsilons: list[float],
    out: Path,
) -> dict[str, Any]:
    from repro.benchmark.grid import DELTA
    from repro.benchmark.results import FORMAT, cell_of, differences, entry_cell, leaderboard
    from repro.data.catalog import flat_sets
    from repro.version import __version__

    rows = []
    for board in found:
        rows += [cell_of(cell, board, stores) for cell in board.cells]
        for entry in entries:
            for epsilon in epsilons:
                rows.append(entry_cell(entry, board, out, epsilon, seeds))
    cells = [row for row, _ in rows]
    seen = {board.facts.get("name") for board in found}
    return {
        "format": FORMAT,
        "version": __version__,
        "profile": profile.name,
        "delta": DELTA,
        "epsilons": epsilons,
        "datasets": [_facts(board) for board in found],
        "cells": cells,
        "differences": differences(rows),
        "leaderboard": leaderboard(cells),
        "not_run": [name for name in flat_sets() if name not in seen],
    }


def _facts(board: Board) -> dict[str, Any]:
    kept = ("name", "source", "md5", "fingerprint", "caption", "train_images", "test_images")
    facts: dict[str, Any] = {key: board.facts.get(key) for key in kept}
    facts["classes"] = len(list(board.facts["class_names"]))  # type: ignore[call-overload]
    for key in ("side", "channels", "multi_label"):
        facts[key] = board.facts.get(key)
    return facts


def _written(document: dict[str, Any], out: Path) -> Outcome:
    from repro.benchmark.page import page
    from repro.files import write_changed
    from repro.formatting import to_json

    paths = [out / "benchmark.json", out / "benchmark.md"]
    write_changed(paths[0], to_json(document) + "\n")
    write_changed(paths[1], page(document))
    done = sum(row["status"] == "done" for row in document["cells"])
    text = "\n".join([f"{done} of {len(document['cells'])} cells", *map(str, paths)])
    return Outcome({"paths": [str(path) for path in paths], **document}, text)
