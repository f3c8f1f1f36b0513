"""The generated parts of the repository's documents.

A part stands between ``<!-- generated:NAME -->`` and ``<!-- end -->``; what is between is
replaced, everything else is left as it is. So no number in any of them is ever typed.

REPRODUCE.md has a row for a table or figure: what it shows, its command, its cost, what was
expected, what came of it. ABLATIONS.md has a section for an ablation, with what was measured.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repro.ablations import ABLATIONS, NAMES
from repro.checks import check_choice
from repro.errors import InputError
from repro.files import write_whole
from repro.report.answer import answer
from repro.report.claims import PAPER_RESULTS
from repro.report.content import CHART, variant_label, variant_summary
from repro.report.expected import ablation_judged, item_judged, load_expected
from repro.report.front import front_table
from repro.report.items import ITEMS, Item
from repro.report.methods import profile_columns
from repro.report.rendering import render
from repro.report.sources import Sources
from repro.report.statistics import percent
from repro.report.table import Column, Table, table_of_rows
from repro.report.verdicts import Verdict, judge, verdict_table

DOCUMENTS = ("README.md", "RESULTS.md", "REPRODUCE.md", "ABLATIONS.md", "docs/profiles.md")
PART = re.compile(r"(<!-- generated:([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

ROOT = PAPER_RESULTS.parent  # of the repository, where the documents lie
ENDINGS = (".md", ".svg")  # what a reader opens first; the other formats lie beside it


def update_documents(sources: Sources, root: Path | None = None) -> list[Path]:
    """Refresh the documents in ``root`` (the repository's by default) from ``sources``."""
    root = ROOT if root is None else root
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
        name = check_choice("generated part", match.group(2), PARTS)
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
    inside = chart.is_relative_to(ROOT)
    return chart.relative_to(ROOT).as_posix() if inside else f"figures/{CHART}.svg"


def _expected(sources: Sources) -> str:
    rows = [dict(vars(band)) for band in load_expected()]
    if not rows:
        return "No band is set yet."
    labels = {"low": "from (%)", "high": "to (%)"}
    caption = "Mean accuracy of the last round over the profile's seeds."
    return str(table_of_rows("expected", "", rows, caption=caption, labels=labels))


def item_table(sources: Sources) -> str:
    verdicts = judge(sources)
    rows = [_item(item, sources, verdicts) for item in ITEMS]
    columns = (
        ("what", "what"),
        ("Command", "command"),
        ("Cost and hardware", "cost and hardware"),
        ("Expected", "expected"),
        ("verdict", "claims settled"),
        ("judged", "as expected?"),
    )
    caption = sources.evidence.dataset_caption
    labelled = [Column(key, label) for key, label in columns]
    return str(Table("items", "", labelled, rows, caption))


def ablation_sections(sources: Sources) -> str:
    folder = sources.find("ablations") or sources.out / "ablations"
    measured = {name: sources.side(f"ablations/{name}") for name in NAMES}
    captions = Counter(table["caption"] for table in measured.values() if table)
    common = captions.most_common(1)[0][0] if captions else ""
    said = f"Accuracy (%) of the last round. Unless said otherwise: {common}\n\n" if common else ""
    return said + "\n\n".join(
        _ablation(name, sources, folder, table, common) for name, table in measured.items()
    )


def _item(item: Item, sources: Sources, verdicts: list[Verdict]) -> dict[str, str]:
    files = list((sources.out / item.folder).glob(f"{item.name}*"))
    said = {key: _code(text) for key, text in item.about().items()}
    return {
        "what": f"**{item.label}: {item.title}**: {links(sources.out, files)}",
        "verdict": _verdict(item, sources, verdicts),
        "judged": item_judged(item.name, sources),
    } | said


def _ablation(
    name: str, sources: Sources, folder: Path, table: dict[str, Any] | None, common: str
) -> str:
    found = [path for ending in ENDINGS if (path := folder / f"{name}{ending}").exists()]
    ablation = ABLATIONS[name]
    parts = {"Question": ablation.question} | ablation.about()
    parts["Drawn"] = links(sources.out, found)
    parts["Measured"] = _measured(table, common)
    if table:
        parts["As expected?"] = ablation_judged(name, table["data"]["variants"]) + "."
    ended = {key if key.endswith("?") else f"{key}.": text for key, text in parts.items()}
    lines = [f"- **{key}** {_code(text)}" for key, text in ended.items()]
    return "\n".join([f"### Ablation {name}", "", *lines])


def _code(text: str) -> str:
    return text.replace("``", "`")


def links(out: Path, paths: list[Path]) -> str:
    """The files a reader opens first, linked where they lie in the repository."""
    shown = []
    for path in sorted(paths, key=lambda path: path.stem):
        if path.suffix not in ENDINGS:
            continue
        if path.resolve().is_relative_to(ROOT):
            shown.append(f"[{path.name}]({path.resolve().relative_to(ROOT).as_posix()})")
        else:
            shown.append(f"`OUT/{Path(os.path.relpath(path, out)).as_posix()}`")
    return ", ".join(shown) + "." if shown else "not drawn here yet."


def _verdict(item: Item, sources: Sources, verdicts: list[Verdict]) -> str:
    settled = {claim.id for claim in sources.claims.of_kind(*item.settles)}
    counts = Counter(v.verdict for v in verdicts if v.claim in settled)
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "–"


def _measured(table: dict[str, Any] | None, common: str) -> str:
    """Accuracy of every variant, by series, from an ablation's JSON; or that it was not run."""
    if table is None:
        return "not run here yet."
    series: dict[str, list[str]] = {}
    for variant in table["data"]["variants"]:
        said = f"{variant_label(variant)}: {percent(variant_summary(variant))}"
        series.setdefault(variant["series"], []).append(said)
    lines = [f"  - {name}: {'; '.join(shown)}" for name, shown in series.items()]
    return "\n".join(["" if table["caption"] == common else table["caption"], *lines])


PARTS: dict[str, Callable[[Sources], str]] = {
    "front": _front,
    "answer": _answer,
    "profiles": lambda sources: str(profile_columns(sources.evidence)),
    "items": item_table,
    "ablations": ablation_sections,
    "verdicts": lambda sources: str(verdict_table(sources)),
    "expected": _expected,
}
