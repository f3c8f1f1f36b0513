"""A table as data, and its four renderings: Markdown, CSV, JSON and an HTML fragment."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.files import write_changed
from repro.formatting import to_json

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


def write_table(table: Table, folder: Path) -> list[Path]:
    """The table as NAME.md, NAME.csv, NAME.json and NAME.html in ``folder``."""
    content = {
        "md": markdown(table),
        "csv": comma_separated(table),
        "json": as_json(table),
        "html": html_fragment(table),
    }
    paths = []
    for ending, text in content.items():
        path = folder / f"{table.name}.{ending}"
        write_changed(path, text)
        paths.append(path)
    return paths


def markdown(table: Table, *, heading: bool = True) -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", "<br>")

    lines = [f"### {table.title}", ""] if heading else []
    lines.append("| " + " | ".join(cell(c.label) for c in table.columns) + " |")
    lines.append("|" + "|".join("---:" if c.number else "---" for c in table.columns) + "|")
    lines += ["| " + " | ".join(map(cell, table.cells(row))) + " |" for row in table.rows]
    lines += ["", *(f"- {note}" for note in table.notes)]
    lines += ([""] if table.notes else []) + [f"*{table.caption}*"]
    return "\n".join(lines) + "\n"


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


def html_text(text: str) -> str:
    """Escaped, and what stands in backquotes as code."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", html.escape(text))


def html_fragment(table: Table) -> str:
    """A ``<figure>`` holding the table in a box that scrolls sideways on a small screen."""

    def cell(tag: str, column: Column, text: str) -> str:
        kind = ' class="n"' if column.number else ""
        scope = ' scope="col"' if tag == "th" else ""
        inner = "<br>".join(html_text(line) for line in text.split("\n"))
        if text == NOT_RUN:
            inner = f'<span class="missing">{inner}</span>'
        # A narrow screen shows a row as a card, and each cell with its column's name.
        label = f' data-label="{html.escape(column.label)}"' if tag == "td" else ""
        return f"<{tag}{kind}{scope}{label}>{inner}</{tag}>"

    head = "".join(cell("th", column, column.label) for column in table.columns)
    body = "\n".join(
        "<tr>"
        + "".join(
            cell("td", column, text)
            for column, text in zip(table.columns, table.cells(row), strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    notes = "".join(f"<li>{html_text(note)}</li>" for note in table.notes)
    return (
        f'<figure class="table" id="{html.escape(table.name)}-table">\n'
        f"<h3>{html.escape(table.title)}</h3>\n"
        f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n"
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
        + f"<figcaption>{html_text(table.caption)}</figcaption>\n</figure>\n"
    )
