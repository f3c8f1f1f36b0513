"""A table as data, also from plain rows, and its renderings: Markdown, CSV, JSON and HTML."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.files import write_changed
from repro.formatting import plain, small, to_json
from repro.report.rendering import render

NOT_RUN = "not run"


@dataclass(frozen=True)
class Column:
    """``key`` in the rows, ``label`` for people; numbers are aligned right."""

    key: str
    label: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """What stands in a table. Cells are text as shown; ``\\n`` separates lines of a cell."""

    name: str  # of its files
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, str]]
    caption: str  # data, profile, seeds
    notes: Sequence[str] = ()
    data: Any = field(default=None, compare=False)  # the numbers behind the cells, for JSON

    def cells(self, row: Mapping[str, str]) -> list[str]:
        return [row.get(column.key, "") for column in self.columns]

    def __str__(self) -> str:
        """As Markdown, without the title; a template that is not HTML shows a table so."""

        def line(cells: Iterable[str]) -> str:
            shown = (text.replace("|", "\\|").replace("\n", "<br>") for text in cells)
            return f"| {' | '.join(shown)} |"

        rule = "".join("---:|" if column.number else "---|" for column in self.columns)
        rows = [line(self.cells(row)) for row in self.rows]
        parts = ["\n".join([line(column.label for column in self.columns), f"|{rule}", *rows])]
        parts += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join([*parts, *([f"*{self.caption}*"] if self.caption else [])])

    def __html__(self) -> str:
        """A ``<figure>`` that scrolls sideways on a small screen; an HTML template shows it so."""
        return render("table.html", table=self)


def write_table(table: Table, folder: Path) -> list[Path]:
    """The table as NAME.md, NAME.csv, NAME.json and NAME.html in ``folder``."""
    content = {
        "md": markdown(table),
        "csv": comma_separated(table),
        "json": as_json(table),
        "html": table.__html__(),
    }
    paths = []
    for ending, text in content.items():
        path = folder / f"{table.name}.{ending}"
        write_changed(path, text)
        paths.append(path)
    return paths


def markdown(table: Table) -> str:
    return f"### {table.title}\n\n{table}\n"


def comma_separated(table: Table) -> str:
    """RFC 4180, with the caption as the last row's only cell so that it never gets lost."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.label for column in table.columns])
    for row in table.rows:
        writer.writerow([cell.replace("\n", "; ") for cell in table.cells(row)])
    writer.writerow([f"# {table.caption}"])
    return text.getvalue()


def as_json(table: Table) -> str:
    return (
        to_json(
            {
                "name": table.name,
                "title": table.title,
                "caption": table.caption,
                "columns": [{"key": c.key, "label": c.label} for c in table.columns],
                "rows": [dict(row) for row in table.rows],
                "notes": list(table.notes),
                "data": table.data,
            }
        )
        + "\n"
    )


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
        rows=[{"what": how, "state": NOT_RUN}],
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


def benchmark_table(
    name: str, title: str, bench: str, found: Mapping[str, Any] | None, note: str
) -> Table:
    """What ``repro bench BENCH --json`` gave, with the machine it holds for; or how to run it."""
    if found is None:
        how = f"repro bench {bench} --json > OUT/bench/{bench}.json"
        return empty_table(name, title, caption="Nothing was measured here.", how=how)
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
        for row in found.get("rows", [])
    ]
    where = found.get("environment", {})
    machine = ", ".join(f"{key} {value}" for key, value in where.items() if value is not None)
    return table_of_rows(name, title, rows, caption=f"Measured on: {machine}.", notes=[note])
