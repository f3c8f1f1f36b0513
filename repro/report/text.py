"""The report as Markdown: the same content, readable where HTML is not shown."""

from __future__ import annotations

from collections.abc import Iterable

from repro.report.answer import Answer, Finding
from repro.report.content import PAPER, SUBTITLE, TITLE, Content
from repro.report.methods import LIMITS
from repro.report.table import markdown


def as_markdown(content: Content) -> str:
    parts = [
        f"# {TITLE}",
        f"**{content.answer.scope}**",
        f"[{SUBTITLE}]({PAPER})",
        *first_screen(content.answer, f"figures/{content.chart[1].name}"),
        f"*Where a number about the paper comes from: {content.answer.tags}.*",
        "## Verdicts",
        markdown(content.verdicts, heading=False),
        "## Tables",
        *map(markdown, content.tables),
        "## Figures",
        *(
            f"![{item.label}. {item.title}](figures/{path.name})"
            for item, path in content.figures
        ),
        "## Beside this report",
        _bullets(f"[{title}]({file})" for title, file in content.elsewhere),
        *(["## Ablations", markdown(content.ablations, heading=False)]
          if content.ablations else []),
        "## How it was measured",
        markdown(content.methods, heading=False),
        "## Limits",
        _bullets(LIMITS),
    ]  # fmt: skip
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def first_screen(given: Answer, chart: str, level: int = 2) -> list[str]:
    """The answer from the three lines to how sure we are, as RESULTS.md has it too."""
    mark = "#" * level
    return [
        f"{mark} In three lines",
        "\n".join(f"{i}. {line}" for i, line in enumerate(given.short, start=1)),
        f"![The answer in one chart]({chart})",
        *([f"{mark} In the paper's setting", markdown(given.paper, heading=False)]
          if given.paper else []),
        f"{mark} What the paper claims",
        given.claims,
        f"{mark} What was found",
        _bullets(map(_finding, given.found)),
        markdown(given.table, heading=False),
        f"{mark} How sure we are",
        _bullets(map(_finding, given.sure)),
    ]  # fmt: skip


def _finding(finding: Finding) -> str:
    return f"**{finding.lead}** {finding.text}"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
