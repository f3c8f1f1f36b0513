"""Draw what is missing, then write the report in both of its forms."""

from __future__ import annotations

from pathlib import Path

from repro.files import write_changed
from repro.report.content import PAPER, SUBTITLE, TITLE, collect
from repro.report.items import draw_all
from repro.report.methods import LIMITS
from repro.report.rendering import render
from repro.report.sources import Sources
from repro.report.table import write_table


def write_report(sources: Sources) -> list[Path]:
    """``report.html`` and ``report.md`` in the sources' folder, drawing what is missing first."""
    for _ in draw_all(sources):
        pass
    content = collect(sources)
    write_table(content.verdicts, sources.out / "tables")
    said = {"title": TITLE, "subtitle": SUBTITLE, "paper": PAPER, "limits": LIMITS}
    paths = [sources.out / name for name in ("report.html", "report.md")]
    for path in paths:
        write_changed(path, render(path.name, content=content, **said))
    return paths
