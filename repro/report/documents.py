"""The generated parts of the repository's documents.

A part stands between ``<!-- generated:NAME -->`` and ``<!-- end -->``; what is between is
replaced, everything else is left as it is. So no number in any of them is ever typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from repro.errors import InputError
from repro.files import write_whole
from repro.report.answer import answer
from repro.report.claims import PAPER_RESULTS
from repro.report.content import CHART
from repro.report.expected import load_expected
from repro.report.front import front_table
from repro.report.methods import profile_columns
from repro.report.rendering import render
from repro.report.sections import ablation_sections, item_table
from repro.report.sources import Sources
from repro.report.table import table_of_rows
from repro.report.verdicts import judge, verdict_table

DOCUMENTS = ("README.md", "RESULTS.md", "REPRODUCE.md", "ABLATIONS.md", "docs/profiles.md")
PART = re.compile(r"(<!-- generated:([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def update_documents(sources: Sources, root: Path | None = None) -> list[Path]:
    """Refresh the documents in ``root`` (the repository's by default) from ``sources``."""
    root = PAPER_RESULTS.parent if root is None else root
    paths = [root / name for name in DOCUMENTS]
    for path in paths:
        if not path.exists():
            raise InputError("document", path.name, "it in the repository's root")
    # All texts are made before the first is written, so that a mistake changes nothing.
    texts = [refreshed(path.read_text(encoding="utf-8"), sources) for path in paths]
    for path, text in zip(paths, texts, strict=True):
        write_whole(path, text)
    return paths


def refreshed(text: str, sources: Sources) -> str:
    """``text`` with every generated part made anew."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(2)
        if name not in PARTS:
            raise InputError("generated part", name, "one of " + ", ".join(PARTS))
        return f"{match.group(1)}{PARTS[name](sources).rstrip()}\n{match.group(3)}"

    return PART.sub(replace, text)


def _front(sources: Sources) -> str:
    """README's first screen: three lines to repeat, the chart, a row for each of the answers."""
    short = answer(sources, judge(sources)).short
    lines = "\n".join(f"{i}. {line}" for i, line in enumerate(short, start=1))
    return f"{lines}\n\n![The answer in one chart]({_chart(sources)})\n\n{front_table(sources)}"


def _answer(sources: Sources) -> str:
    given = answer(sources, judge(sources))
    return f"**{given.scope}**\n\n" + render("answer.md", given=given, chart=_chart(sources))


def _chart(sources: Sources) -> str:
    chart = (sources.out / "figures" / f"{CHART}.svg").resolve()
    inside = chart.is_relative_to(PAPER_RESULTS.parent)
    return chart.relative_to(PAPER_RESULTS.parent).as_posix() if inside else f"figures/{CHART}.svg"


def _profiles(sources: Sources) -> str:
    return str(profile_columns(sources.evidence))


def _verdicts(sources: Sources) -> str:
    return str(verdict_table(sources))


def _expected(sources: Sources) -> str:
    rows = [dict(vars(band)) for band in load_expected()]
    if not rows:
        return "No band is set yet."
    labels = {"low": "from (%)", "high": "to (%)"}
    caption = "Mean accuracy of the last round over the profile's seeds."
    return str(table_of_rows("expected", "", rows, caption=caption, labels=labels))


PARTS: dict[str, Callable[[Sources], str]] = {
    "front": _front,
    "answer": _answer,
    "profiles": _profiles,
    "items": item_table,
    "ablations": ablation_sections,
    "verdicts": _verdicts,
    "expected": _expected,
}
