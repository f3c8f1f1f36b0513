"""The report: one self-contained HTML file, and the same content as Markdown.

Everything in it comes from the run store, the claims and the files drawn from them. It loads
nothing: style and figures are inside, so it opens from a file without a network.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repro.files import write_changed
from repro.report.answer import Answer, Finding, answer
from repro.report.items import FIGURES, TABLES, Item, draw_all
from repro.report.methods import LIMITS, measured_table, profile_columns
from repro.report.page import STYLE
from repro.report.sources import Sources
from repro.report.table import Table, html_fragment, markdown, write_table
from repro.report.verdicts import judge, verdict_table

TITLE = "Does “DP+ / SecAgg+” hold? arXiv 2412.00687, reproduced"
SUBTITLE = (
    "Towards Privacy-Preserving Medical Imaging: Federated Learning with Differential Privacy (DP) "
    "and Secure Aggregation (SecAgg) Using a Modified ResNet Architecture"
)
PAPER = "https://arxiv.org/abs/2412.00687"


@dataclass(frozen=True)
class Content:
    """What both renderings show."""

    answer: Answer
    verdicts: Table
    tables: list[tuple[Item, list[Table]]]
    figures: list[tuple[Item, Path, str]]  # its SVG, and what it shows in a sentence
    ablations: dict[str, list[Path]]  # what each that was run left: table, drawing
    methods: list[Table]
    caption: str
    out: Path  # where it is written, for links


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


def collect(sources: Sources) -> Content:
    verdicts = judge(sources)
    return Content(
        answer=answer(sources, verdicts),
        verdicts=verdict_table(sources, verdicts),
        tables=[(item, item.load().build(sources)) for item in TABLES],
        figures=[
            (
                item,
                sources.out / "figures" / f"{item.name}.svg",
                item.about().get("Expected", ""),
            )
            for item in FIGURES
        ],
        ablations=_found_ablations([place / "ablations" for place in sources.places]),
        out=sources.out,
        methods=[measured_table(sources), profile_columns(sources.evidence)],
        caption=sources.evidence.caption(),
    )


def as_html(content: Content) -> str:
    sections = [
        _first_screen(content),
        _section("verdicts", "Verdicts", [html_fragment(content.verdicts)]),
        _section("tables", "Tables", [html_fragment(t) for _, ts in content.tables for t in ts]),
        _section("figures", "Figures", map(_figure, content.figures)),
        *_ablations(content),
        _section("methods", "How it was measured", map(html_fragment, content.methods)),
        _section("limits", "Limits", ["<ul>" + "".join(map(_item, LIMITS)) + "</ul>"]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(TITLE)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _first_screen(content: Content) -> str:
    links = "".join(
        f'<a href="#{anchor}">{anchor.capitalize()}</a>'
        for anchor in ("verdicts", "tables", "figures", "methods", "limits")
    )
    return (
        f"<header>\n<h1>{html.escape(TITLE)}</h1>\n"
        f'<p class="data"><a href="{PAPER}">{html.escape(SUBTITLE)}</a></p>\n'
        f'<p class="data">{html.escape(content.caption)}</p>\n</header>\n'
        '<section id="answer">\n<h2>What the paper claims</h2>\n'
        f"<p>{_prose(content.answer.claims)}</p>\n"
        f"<h2>What was found</h2>\n<ul>{''.join(map(_finding, content.answer.found))}</ul>\n"
        f"{html_fragment(content.answer.table)}"
        f"<h2>How sure we are</h2>\n<ul>{''.join(map(_finding, content.answer.sure))}</ul>\n"
        f'<p class="data">Where a number about the paper comes from: '
        f"{html.escape(content.answer.tags)}.</p>\n"
        f"</section>\n<nav>{links}</nav>\n"
    )


def _finding(finding: Finding) -> str:
    return f"<li><b>{_prose(finding.lead)}</b> {_prose(finding.text)}</li>"


def _prose(text: str) -> str:
    """Escaped, and kept from breaking a line inside ``ε = 6``, ``1 ± 2`` or ``3 / 4``."""
    for sign in "=±/":
        text = text.replace(f" {sign} ", f"\u00a0{sign}\u00a0")
    return html.escape(text)


def _item(text: str) -> str:
    return f"<li>{html.escape(text)}</li>"


def _section(anchor: str, heading: str, parts: Iterable[str]) -> str:
    return f'<section id="{anchor}">\n<h2>{heading}</h2>\n{"".join(parts)}</section>\n'


def _figure(entry: tuple[Item, Path, str]) -> str:
    item, path, sentence = entry
    caption = f"<b>Expected:</b> {html.escape(sentence)}"
    return _drawing(item.name, f"{item.label}. {item.title}", path, caption)


def _drawing(name: str, label: str, path: Path, caption: str) -> str:
    """A drawing inside the page, on a white card so that it reads in dark too."""
    image = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure class="drawing" id="{html.escape(name)}">\n<div class="card scroll" '
        f'tabindex="0"><img alt="{html.escape(label)}" src="data:image/svg+xml;base64,{image}">'
        f"</div>\n<figcaption>{caption}</figcaption>\n</figure>\n"
    )


def _found_ablations(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """By name, from the first folder that has it."""
    seen: dict[str, Path] = {}
    for folder in folders:
        for path in (*folder.glob("*.html"), *folder.glob("*.svg")):
            seen.setdefault(path.name, path)
    paths = [seen[name] for name in sorted(seen)]
    found: dict[str, list[Path]] = {path.stem: [] for path in paths}
    for path in paths:
        found[path.stem].append(path)
    return found


def _ablations(content: Content) -> list[str]:
    """A section only where an ablation was run."""
    parts = []
    for name, paths in content.ablations.items():
        for path in paths:
            if path.suffix == ".svg":
                caption = f"repro ablate {html.escape(name)}"
                parts.append(_drawing(f"ablation-{name}", f"Ablation: {name}", path, caption))
            else:
                parts.append(path.read_text(encoding="utf-8"))
    return [_section("ablations", "Ablations", parts)] if parts else []


def _markdown_ablations(content: Content) -> list[str]:
    parts = []
    for name, paths in content.ablations.items():
        for path in paths:
            if path.suffix == ".svg":
                link = Path(os.path.relpath(path, content.out)).as_posix()
                parts.append(f"![Ablation: {name}]({link})")
            else:
                parts.append(path.with_suffix(".md").read_text(encoding="utf-8"))
    return ["## Ablations", *parts] if parts else []


def as_markdown(content: Content) -> str:
    def bullets(findings: Iterable[Finding]) -> list[str]:
        return [f"- **{finding.lead}** {finding.text}" for finding in findings]

    parts = [
        f"# {TITLE}",
        f"[{SUBTITLE}]({PAPER})",
        f"*{content.caption}*",
        "## What the paper claims",
        content.answer.claims,
        "## What was found",
        "\n".join(bullets(content.answer.found)),
        markdown(content.answer.table, heading=False),
        "## How sure we are",
        "\n".join(bullets(content.answer.sure)),
        f"*Where a number about the paper comes from: {content.answer.tags}.*",
        "## Verdicts",
        markdown(content.verdicts, heading=False),
        "## Tables",
        *(markdown(table) for _, tables in content.tables for table in tables),
        "## Figures",
        *(
            f"![{item.label}. {item.title}](figures/{path.name})\n\n**Expected:** {sentence}"
            for item, path, sentence in content.figures
        ),
        *_markdown_ablations(content),
        "## How it was measured",
        *map(markdown, content.methods),
        "## Limits",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
