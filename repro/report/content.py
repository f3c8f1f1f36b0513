"""The report: what it shows, gathered once for both of its forms, and how they are written.

The report is the answer, the claims' verdicts and the few tables and figures that carry them.
The rest (details, benchmarks, ablations) lies beside it, is listed with one line each, and is
not repeated: who reads the report should be able to finish it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from repro.ablations import NAMES
from repro.files import write_changed
from repro.report.answer import answer
from repro.report.honest import recommended
from repro.report.items import ITEMS, Item, draw_all, find
from repro.report.items.table2_privacy import privacy_summary
from repro.report.items.table6_audit import audit_summary
from repro.report.items.table7_overnight import build as overnight_tables
from repro.report.items.table8_forensics import forensics_summary
from repro.report.methods import measured_table
from repro.report.rendering import render
from repro.report.sources import Sources
from repro.report.statistics import Summary, percent
from repro.report.table import Column, Table, write_table
from repro.report.verdicts import judge, verdict_table
from repro.runs.arm import PRIVATE
from repro.runs.guarantees import promise

TITLE = "Does “DP+ / SecAgg+” hold? arXiv 2412.00687, reproduced"
SUBTITLE = (
    "Towards Privacy-Preserving Medical Imaging: Federated Learning with Differential Privacy (DP) "
    "and Secure Aggregation (SecAgg) Using a Modified ResNet Architecture"
)
PAPER = "https://arxiv.org/abs/2412.00687"
CHART = "answer"  # the figure on the first screen
SHOWN_FIGURES = ("frontier", "accuracy", "recall")
SHOWN_TABLES = ("table2", "table7", "table8")  # the first table of each, in short


class Bar(NamedTuple):
    """One number of the headline: accuracy in per cent."""

    hospitals: int
    label: str
    percent: float
    claimed: bool


def write_report(sources: Sources) -> list[Path]:
    """``report.html`` and ``report.md`` in the sources' folder, drawing what is missing first."""
    for _ in draw_all(sources):
        pass
    content = collect(sources)
    write_table(content["verdicts"], sources.out / "tables")
    said = {"title": TITLE, "subtitle": SUBTITLE, "paper": PAPER, "limits": limits()}
    paths = [sources.out / name for name in ("report.html", "report.md")]
    for path in paths:
        write_changed(path, render(path.name, content=content, **said))
    return paths


def limits() -> list[str]:
    """What the numbers cannot say: the paragraphs of templates/limits.md."""
    return [" ".join(one.split()) for one in render("limits.md").split("\n\n")]


def collect(sources: Sources) -> dict[str, Any]:
    """What both forms show, by the name that their templates have for it."""
    verdicts = judge(sources)
    return {
        "answer": answer(sources, verdicts),
        "chart": _figure(sources, find("figure", CHART)),
        # What a screen too narrow for the chart shows of it.
        "headline": _headline(sources),
        "verdicts": verdict_table(sources, verdicts),
        "tables": [
            privacy_summary(sources),
            *overnight_tables(sources),
            audit_summary(sources),
            forensics_summary(sources),
        ],
        "figures": [_figure(sources, find("figure", name)) for name in SHOWN_FIGURES],
        # (title, file beside the report) of all that is not shown.
        "elsewhere": _elsewhere(sources),
        "ablations": ablation_summary(sources),
        "methods": measured_table(sources),
    }


def _headline(sources: Sources) -> list[Bar]:
    """The paper's claim and the recommended arm, for every number of hospitals."""
    evidence, best, bars = sources.evidence, recommended(sources.evidence), []
    for hospitals in evidence.hospital_counts:
        claim = sources.claims.accuracy(PRIVATE, hospitals)
        if claim is not None:
            label = f"the paper's claim [{claim.source}]"
            bars.append(Bar(hospitals, label, float(claim.value), True))
        if best is not None and (final := evidence.final(best.name, hospitals)):
            label = f"honest, {promise(best.name)}"
            bars.append(Bar(hospitals, label, 100 * final.mean, False))
    return bars


def _figure(sources: Sources, item: Item) -> tuple[Item, Path]:
    return item, sources.out / "figures" / f"{item.name}.svg"


def _elsewhere(sources: Sources) -> list[tuple[str, str]]:
    """Tables' further parts, and the tables and figures that the report only names."""
    listed = []
    for item in ITEMS:
        if item.kind == "table":
            parts = item.build(sources)
            listed += [
                (part.title, f"tables/{part.name}.md")
                for part in (parts[1:] if item.name in SHOWN_TABLES else parts)
            ]
        elif item.name not in (*SHOWN_FIGURES, CHART):
            listed.append((f"{item.label}. {item.title}", f"figures/{item.name}.svg"))
    return listed


def ablation_summary(sources: Sources) -> Table | None:
    """A line for each ablation that was run: how far it moved the arm that it moved most."""
    rows = []
    for name in NAMES:
        table = sources.side(f"ablations/{name}")
        if table is not None:
            variants = (table.get("data") or {}).get("variants", [])
            rows.append({"name": name, "range": _range(variants)})
    if not rows:
        return None
    return Table(
        name="ablations",
        title="One decision changed at a time",
        columns=[
            Column("name", "ablation"),
            Column("range", "accuracy (%) of the arm moved most, lowest and highest variant"),
        ],
        rows=rows,
        caption="Each with its question, table and figure in ablations/NAME.md and .svg; `repro "
        "ablate NAME` runs one.",
    )


def _range(variants: list[dict[str, Any]]) -> str:
    """``dpsgd-eps6: 36.1 ± 2.0 (0.1) to 61.2 ± 1.1 (3)``: its extremes, with variants' labels."""
    if not variants:
        return "–"
    series: dict[str, list[dict[str, Any]]] = {}
    for variant in sorted(variants, key=lambda variant: float(variant["mean"])):
        series.setdefault(variant["series"], []).append(variant)
    arm, ordered = max(series.items(), key=lambda item: item[1][-1]["mean"] - item[1][0]["mean"])
    ends = ((variant_label(one), variant_summary(one)) for one in (ordered[0], ordered[-1]))
    said = (f"{percent(summary, digits=1)} ({label})" for label, summary in ends)
    return f"{arm}: {' to '.join(said)}"


def variant_label(variant: dict[str, Any]) -> str:
    """Of an ablation's variant, in one line."""
    return " ".join(str(variant["variant"]).replace("\n", ", ").split())


def variant_summary(variant: dict[str, Any]) -> Summary:
    return Summary(variant["mean"], variant["deviation"], len(variant["seeds"]))
