"""The report as one HTML file.

It loads nothing: style and figures are inside, so it opens from a file without a network. What
is only listed is linked relative to the file, where ``repro report`` leaves it.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path

from repro.report.answer import Finding
from repro.report.content import PAPER, SUBTITLE, TITLE, Bar, Content
from repro.report.items import Item
from repro.report.methods import LIMITS
from repro.report.page import STYLE
from repro.report.table import html_fragment, html_text


def as_html(content: Content) -> str:
    sections = [
        _first_screen(content),
        _section("verdicts", "Verdicts", [html_fragment(content.verdicts)]),
        _section("tables", "Tables", map(html_fragment, content.tables)),
        _section("figures", "Figures", (_figure(*entry) for entry in content.figures)),
        _section("elsewhere", "Beside this report", [_elsewhere(content)]),
        *([_section("ablations", "Ablations", [html_fragment(content.ablations)])]
          if content.ablations else []),
        _section("methods", "How it was measured", [html_fragment(content.methods)]),
        _section("limits", "Limits", [_list(map(_prose, LIMITS))]),
    ]  # fmt: skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(TITLE)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
        f"<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _first_screen(content: Content) -> str:
    given = content.answer
    links = "".join(
        f'<a href="#{anchor}">{anchor.capitalize()}</a>'
        for anchor in ("verdicts", "tables", "figures", "elsewhere", "methods", "limits")
    )
    paper = ""
    if given.paper is not None:
        paper = f"<h2>In the paper's setting</h2>\n{html_fragment(given.paper)}"
    short = "".join(f"<li>{_prose(line)}</li>" for line in given.short)
    return (
        f"<header>\n<h1>{html.escape(TITLE)}</h1>\n"
        f'<p class="scope">{_prose(given.scope)}</p>\n'
        f'<p class="data"><a href="{PAPER}">{html.escape(SUBTITLE)}</a></p>\n</header>\n'
        f'<section id="answer">\n<h2>In three lines</h2>\n<ol>{short}</ol>\n'
        f"{_narrow(content.headline)}{_figure(*content.chart)}"
        f"{paper}"
        f"<h2>What the paper claims</h2>\n<p>{_prose(given.claims)}</p>\n"
        f"<h2>What was found</h2>\n{_list(map(_finding, given.found))}\n"
        f"{html_fragment(given.table)}"
        f"<h2>How sure we are</h2>\n{_list(map(_finding, given.sure))}\n"
        f'<p class="data">Where a number about the paper comes from: '
        f"{html.escape(given.tags)}.</p>\n"
        f"</section>\n<nav>{links}</nav>\n"
    )


def _narrow(bars: list[Bar]) -> str:
    """The headline as bars of the page itself, shown where the chart does not fit."""
    rows = ""
    for bar in bars:
        kind = ' class="claimed"' if bar.claimed else ""
        rows += (
            f"<li{kind}><span>{bar.hospitals} hospitals, {html.escape(bar.label)}: "
            f'<b>{bar.percent:.1f} %</b></span><i style="width:{bar.percent:.1f}%"></i></li>'
        )
    return f'<ul class="narrow">{rows}</ul>\n' if bars else ""


def _finding(finding: Finding) -> str:
    return f"<b>{_prose(finding.lead)}</b> {_prose(finding.text)}"


def _prose(text: str) -> str:
    """Escaped, and kept from breaking a line inside ``ε = 6``, ``1 ± 2`` or ``3 / 4``."""
    for sign in "=±/":
        text = text.replace(f" {sign} ", f"\u00a0{sign}\u00a0")
    return html_text(text)


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _section(anchor: str, heading: str, parts: Iterable[str]) -> str:
    return f'<section id="{anchor}">\n<h2>{heading}</h2>\n{"".join(parts)}</section>\n'


def _elsewhere(content: Content) -> str:
    return _list(
        f'<a href="{html.escape(file)}">{html.escape(title)}</a>'
        for title, file in content.elsewhere
    )


def _figure(item: Item, path: Path) -> str:
    """A drawing inside the page, on a white card so that it reads in dark too."""
    image = base64.b64encode(path.read_bytes()).decode()
    label = f"{item.label}. {item.title}"
    return (
        f'<figure class="drawing" id="figure-{html.escape(item.name)}">\n<div class="card scroll" '
        f'tabindex="0"><img alt="{html.escape(label)}" src="data:image/svg+xml;base64,{image}">'
        f"</div>\n<figcaption>{html.escape(label)}</figcaption>\n</figure>\n"
    )
