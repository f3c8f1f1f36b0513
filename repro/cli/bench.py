"""``repro bench NAME``: speed and memory beside a peer, measured in the same run.

A benchmark is a module with ``configure(parser)`` and
``measure(arguments) -> tuple[list[Row], dict]`` (rows, and the environment they hold for);
``kept_as(arguments) -> str`` where that is not the benchmark's name.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from repro.bench import format_rows
from repro.cli import OneLineParser
from repro.cli.output import Outcome
from repro.files import write_whole
from repro.formatting import to_json

BENCHMARKS: dict[str, tuple[str, str]] = {
    "train": ("repro.bench.train", "one local epoch against the authors' way"),
    "dpsgd": ("repro.bench.dpsgd", "DP-SGD engines against plain SGD and Opacus"),
    "kernels": ("repro.bench.kernels", "the Triton clip-and-noise kernel against PyTorch"),
    "secagg": ("repro.bench.secagg", "secure aggregation against Flower's SecAgg+"),
    "accountant": ("repro.bench.accountant", "the accountant against dp-accounting and Opacus"),
    "tightness": ("repro.bench.tightness", "what Rényi accounting gives away in ε"),
    "scale": ("repro.bench.scale", "rounds per minute and memory against hospitals"),
}


def configure(parser: OneLineParser) -> None:
    parser.explain(benchmarks={name: summary for name, (_, summary) in BENCHMARKS.items()})
    parser.add_argument(
        "--out", metavar="DIR", help="also keep the rows in DIR/bench/NAME.json, for the tables"
    )
    parser.add_argument("name", metavar="NAME", choices=list(BENCHMARKS), help="see below")
    for name in BENCHMARKS:
        if name in parser.words:
            importlib.import_module(BENCHMARKS[name][0]).configure(parser)


def execute(arguments: argparse.Namespace) -> Outcome:
    module = importlib.import_module(BENCHMARKS[arguments.name][0])
    rows, where = module.measure(arguments)
    kept_as = getattr(module, "kept_as", lambda given: given.name)
    data = {
        "name": kept_as(arguments),
        "rows": [row.as_dict() for row in rows],
        "environment": where,
    }
    if arguments.out:
        keep(arguments.out, data)
    machine = ", ".join(f"{key} {value}" for key, value in where.items() if value is not None)
    return Outcome(data, f"{format_rows(rows)}\n\nmeasured on: {machine}")


def keep(out: str | Path, data: dict[str, Any]) -> None:
    """Write a benchmark's rows where Tables 2 to 4 look for them."""
    write_whole(Path(out) / "bench" / f"{data['name']}.json", to_json(data) + "\n")
