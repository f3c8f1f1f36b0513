"""A table as data, and its four renderings: Markdown, CSV, JSON and an HTML fragment."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.files import write_changed
from repro.formatting import to_json
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
