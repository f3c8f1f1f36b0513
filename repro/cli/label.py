"""``repro label``: the privacy label of one run, on one page. Trains nothing, needs no torch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from repro.cli.output import Outcome
from repro.errors import InputError
from repro.runs.record import RunRecord
from repro.runs.store import RunStore

DEFAULT_RUNS = "paper_results"
_RECORD = "record.json"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", metavar="RUN", help="a run: see below")
    add("--hospitals", metavar="K", type=int, default=10, help="default 10")
    add("--seed", metavar="S", type=int, default=0, help="of an arm (default 0)")
    add("--profile", metavar="P", help="of an arm (default: any)")
    store = f"the store of runs, with its audits beside them (default {DEFAULT_RUNS})"
    add("--runs", metavar="DIR", default=DEFAULT_RUNS, help=store)
    add("--out", metavar="DIR", help="also write RUN.md, RUN.html and RUN.json there")


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.files import write_whole
    from repro.formatting import to_json
    from repro.report.label import as_html, as_markdown, label_of

    record, root = _find(arguments)
    label = label_of(record, _audit(root, record.arm))
    text = as_markdown(label)
    if arguments.out is not None:
        folder = Path(arguments.out)
        made = {"md": text, "html": as_html(label), "json": to_json(label) + "\n"}
        for ending, content in made.items():
            write_whole(folder / f"{record.run_id}.{ending}", content)
    return Outcome(label, text.rstrip("\n"))


def _find(arguments: argparse.Namespace) -> tuple[RunRecord, Path]:
    """The run's record, and the root of its store."""
    path = Path(arguments.run)
    if path.name == _RECORD and path.is_file():
        path = path.parent
    if (path / _RECORD).is_file():
        path = path.resolve()
        root = path.parent.parent
        return RunRecord.from_dict(_read(path / _RECORD)), root
    root = Path(arguments.runs)
    store = RunStore(root, written=False)
    named = store.load(path.name)
    if named is not None:
        return named, root
    return _of_arm(arguments, store), root


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise InputError(str(path), type(problem).__name__, "readable JSON") from problem


def _of_arm(arguments: argparse.Namespace, store: RunStore) -> RunRecord:
    from repro.report.evidence import is_canonical

    wanted = (arguments.run, arguments.hospitals, arguments.seed)
    records = [r for r in store.all() if arguments.profile in (None, r.profile)]
    own = [r for r in records if r.arm == arguments.run]
    found = [r for r in own if (r.arm, r.hospitals, r.seed) == wanted]
    chosen = [r for r in found if is_canonical(r)] or found
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        names = ", ".join(r.run_id for r in chosen)
        raise InputError("run", arguments.run, f"one of several by name: {names}")
    if own:
        have = sorted({(r.hospitals, r.seed) for r in own if r.seed is not None})
        shown = ", ".join(f"--hospitals {k} --seed {s}" for k, s in have)
        raise InputError("run", arguments.run, f"one on record: {shown}")
    expected = f"a run's folder, or the name of a run or of an arm with runs in {store.runs}"
    raise InputError("run", arguments.run, expected)


def _audit(root: Path, arm: str) -> dict[str, Any] | None:
    """Of the arm as it is, where there is one beside the runs."""
    path = root / "audit" / f"{arm}.json"
    return dict(_read(path)) if path.is_file() else None
