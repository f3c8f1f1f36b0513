"""Draw what is missing, then write the report in both of its forms."""

from __future__ import annotations

from pathlib import Path

from repro.files import write_changed
from repro.report.content import collect
from repro.report.html import as_html
from repro.report.items import draw_all
from repro.report.sources import Sources
from repro.report.table import write_table
from repro.report.text import as_markdown


def write_report(sources: Sources) -> list[Path]:
    """``report.html`` and ``report.md`` in the sources' folder, drawing what is missing first."""
    for _ in draw_all(sources):
        pass
    content = collect(sources)
    write_table(content.verdicts, sources.out / "tables")
    paths = [sources.out / "report.html", sources.out / "report.md"]
    write_changed(paths[0], as_html(content))
    write_changed(paths[1], as_markdown(content))
    return paths
