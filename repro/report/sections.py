"""REPRODUCE.md's sections: one for each table and figure, and one for each ablation.

Each says the command, the cost, what to expect and where the drawn files are; a table's or
figure's gives its verdicts, an ablation's what was measured, where it was run.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from repro.ablations import NAMES, about, get_ablation
from repro.report.claims import PAPER_RESULTS
from repro.report.items import ITEMS, Item
from repro.report.sources import Sources
from repro.report.statistics import Summary, percent
from repro.report.verdicts import Verdict, judge

ROOT = PAPER_RESULTS.parent  # of the repository, where the documents lie
ENDINGS = (".md", ".svg")  # what a reader opens first; the other formats lie beside it


def item_sections(sources: Sources) -> str:
    verdicts = judge(sources)
    return "\n\n".join(_item(item, sources, verdicts) for item in ITEMS)


def ablation_sections(sources: Sources) -> str:
    return "\n\n".join(_ablation(name, sources) for name in NAMES)


def _item(item: Item, sources: Sources, verdicts: list[Verdict]) -> str:
    files = sources.out / item.folder
    return _section(
        f"{item.label}: {item.title}",
        item.about(),
        {
            "Drawn": links(sources.out, list(files.glob(f"{item.name}*"))),
            "Verdict": _verdict(item, sources, verdicts),
        },
    )


def _ablation(name: str, sources: Sources) -> str:
    folder = sources.find("ablations") or sources.out / "ablations"
    found = [path for ending in ENDINGS if (path := folder / f"{name}{ending}").exists()]
    said = about(name) | {
        "Drawn": links(sources.out, found),
        "Measured": _measured(folder / f"{name}.json"),
    }
    return _section(f"Ablation {name}", {"Question": get_ablation(name).question}, said)


def _section(heading: str, *parts: dict[str, str]) -> str:
    lines = [f"### {heading}", ""]
    for part in parts:
        lines += [f"- **{key}.** {text.replace('``', '`')}" for key, text in part.items()]
    return "\n".join(lines)


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
    if not counts:
        return "It shows; it settles no claim by itself."
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) + "."


def _measured(path: Path) -> str:
    """Accuracy of every variant, by series, from an ablation's JSON; or that it was not run."""
    if not path.exists():
        return "not run here yet."
    table = json.loads(path.read_text(encoding="utf-8"))
    series: dict[str, list[str]] = {}
    for variant in table["data"]["variants"]:
        series.setdefault(variant["series"], []).append(_variant(variant))
    lines = [f"  - {name}: {'; '.join(shown)}" for name, shown in series.items()]
    return "\n".join([f"accuracy (%) of the last round. {table['caption']}", *lines])


def _variant(variant: dict[str, Any]) -> str:
    summary = Summary(variant["mean"], variant["deviation"], len(variant["seeds"]))
    label = " ".join(variant["variant"].replace("\n", ", ").split())
    return f"{label}: {percent(summary)}"
