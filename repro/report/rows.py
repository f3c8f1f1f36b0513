"""Tables from plain rows (lists of dictionaries), as benchmarks and the accountant give them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from repro.formatting import plain, small
from repro.report.table import Column, Table


def table_of_rows(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    caption: str,
    notes: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Table:
    """One column per key, in the order in which keys first appear; ``labels`` renames them."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    labels = labels or {}
    return Table(
        name=name,
        title=title,
        columns=[
            Column(key, labels.get(key, key.replace("_", " ")), number=_numeric(rows, key))
            for key in keys
        ],
        rows=[{key: cell(row.get(key)) for key in keys} for row in rows],
        caption=caption,
        notes=notes,
        data=[dict(row) for row in rows],
    )


def empty_table(name: str, title: str, *, caption: str, how: str) -> Table:
    """A table nothing was measured for; ``how`` says how to get it."""
    return Table(
        name=name,
        title=title,
        columns=[Column("what", "what"), Column("state", "state")],
        rows=[{"what": how, "state": "not run"}],
        caption=caption,
    )


def cell(value: Any) -> str:
    """A value as shown: four significant digits, ∞, thousands separated, yes and no."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        return small(value) if 0 < abs(value) < 1e-3 else plain(value)
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    return str(value)


def _numeric(rows: Sequence[Mapping[str, Any]], key: str) -> bool:
    values = [row[key] for row in rows if row.get(key) is not None]
    return bool(values) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )


def benchmark_table(name: str, title: str, bench: Mapping[str, Any], notes: Sequence[str]) -> Table:
    """The rows of ``repro bench NAME --json``, with the machine they hold for as caption."""
    rows = [
        {
            "contestant": row["name"],
            "metric": row["metric"],
            "median": row["median"],
            "p20": row["p20"],
            "p80": row["p80"],
            "unit": row["unit"],
            "repeats": row["repeats"],
            "relative": row.get("relative"),
            "note": row.get("note", ""),
        }
        for row in bench.get("rows", [])
    ]
    where = bench.get("environment", {})
    machine = ", ".join(f"{key} {value}" for key, value in where.items() if value is not None)
    return table_of_rows(name, title, rows, caption=f"Measured on: {machine}.", notes=notes)
