"""``repro partition``: which hospital holds how many records, and of which classes."""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli import OneLineParser
from repro.cli.output import Outcome
from repro.cli.run import add_data
from repro.data import SCHEMES, Dataset, check_partition, label_counts, load_dataset, partition
from repro.data.duplicates import duplicate_facts


def configure(parser: OneLineParser) -> None:
    parser.explain(schemes=SCHEMES)
    add = parser.add_argument
    add("--hospitals", metavar="K", type=int, required=True, help="how many")
    add("--scheme", choices=list(SCHEMES), default="authors", help="see below")
    add("--alpha", type=float, default=0.5, help="of dirichlet (default 0.5)")
    add("--exponent", type=float, default=1.0, help="of zipf (default 1)")
    add("--seed", type=int, default=0, help="of shuffles and train/validation splits (default 0)")
    add_data(parser)


def execute(arguments: argparse.Namespace) -> Outcome:
    choices = {key: getattr(arguments, key) for key in ("scheme", "seed", "alpha", "exponent")}
    # Before the data, which may be a download away.
    check_partition(arguments.hospitals, **choices)
    dataset = load_dataset(arguments.data, arguments.dataset)
    shares = partition(dataset.train.labels, arguments.hospitals, **choices)
    labels = dataset.train.labels
    counts = [label_counts(labels[share.records], dataset.num_classes) for share in shares]
    sizes = [len(share.records) for share in shares]
    train_sizes = [len(share.train) for share in shares]
    holders = {hospital: share.records for hospital, share in enumerate(shares)}
    duplicates = duplicate_facts(dataset, dataset.train.images, holders)
    return Outcome(
        data={
            "hospitals": arguments.hospitals,
            "scheme": arguments.scheme,
            "seed": arguments.seed,
            "dataset": dataset.facts(),
            "class_names": list(dataset.class_names),
            "sizes": sizes,
            "train_sizes": train_sizes,
            "labels": counts,
            "duplicates": duplicates,
        },
        text=_table(dataset, sizes, train_sizes, counts) + _said(duplicates),
    )


def _said(duplicates: dict[str, Any]) -> str:
    """One more line where images are stored more than once."""
    stored, held = duplicates["stored"], duplicates["held"]
    if not stored["images"]:
        return ""
    return (
        f"\nduplicates: {stored['images']} images are stored more than once, "
        f"{stored['train_and_test']} of them to train and to test, "
        f"{held['in_several_hospitals']} in two hospitals or more"
    )


def _table(
    dataset: Dataset, sizes: list[int], train_sizes: list[int], counts: list[list[int]]
) -> str:
    header = ["hospital", "images", "train", *(f"class {c}" for c in range(dataset.num_classes))]
    columns = [
        [size, train, *row] for size, train, row in zip(sizes, train_sizes, counts, strict=True)
    ]
    totals = [sum(column) for column in zip(*columns, strict=True)]
    names = [*map(str, range(len(sizes))), "all"]
    rows = [header, *([name, *row] for name, row in zip(names, [*columns, totals], strict=True))]
    lines = ["  ".join(f"{word!s:>8}" for word in row) for row in rows]
    classes = ", ".join(f"{c} {name}" for c, name in enumerate(dataset.class_names))
    return "\n".join([*lines, "", f"classes: {classes}", dataset.caption()])
