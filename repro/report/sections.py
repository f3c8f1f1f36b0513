"""What REPRODUCE.md and ABLATIONS.md say of each table, figure and ablation.

REPRODUCE.md has a row for a table or figure: what it shows, its command, its cost, what was
expected, what came of it. ABLATIONS.md has a section for an ablation, with what was measured.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from repro.ablations import ABLATIONS, NAMES
from repro.report.claims import PAPER_RESULTS
from repro.report.content import variant_label, variant_summary
from repro.report.expected import ablation_judged, item_judged
from repro.report.items import ITEMS, Item
from repro.report.sources import Sources
from repro.report.statistics import percent
from repro.report.table import Column, Table
from repro.report.verdicts import Verdict, judge

ROOT = PAPER_RESULTS.parent  # of the repository, where the documents lie
ENDINGS = (".md", ".svg")  # what a reader opens first; the other formats lie beside it


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
    lines = [f"- **{_ended(key)}** {_code(text)}" for key, text in parts.items()]
    return "\n".join([f"### Ablation {name}", "", *lines])


def _ended(key: str) -> str:
    return key if key.endswith("?") else f"{key}."


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
