"""How the numbers were measured, and what they cannot say."""

from __future__ import annotations

import re
from typing import Any

from repro.report.answer import coverage
from repro.report.evidence import Evidence
from repro.report.sources import Sources
from repro.report.table import Column, Table
from repro.report.tightness import given_away
from repro.runs.arms import ARMS, DPRESNET
from repro.runs.guarantees import warnings_of
from repro.runs.profiles import PROFILES, profile_table


def measured_table(sources: Sources) -> Table:
    """Profile, data, machines, versions, code and time of the runs; how tight their ε is."""
    evidence = sources.evidence
    records = evidence.records
    done, wanted = coverage(evidence)

    def each(values: list[Any]) -> str:
        return "\n".join(sorted({str(v) for v in values if v not in (None, "")})) or "–"

    seconds = sum(record.wall_seconds for record in records)
    environments = [record.environment for record in records]
    keys = sorted({key for environment in environments for key in environment})
    rows = [
        ("profile", f"{evidence.profile}: {PROFILES[evidence.profile].summary}"),
        ("data fingerprint", each([r.dataset.get("fingerprint") for r in records])),
        ("runs", f"{done} of {wanted} of the matrix (arms × hospitals × seeds)"),
        ("seeds", each([r.seed for r in records])),
        ("where noise and masks come from", each([r.seed_source for r in records])),
        ("what the ledgers warn of", each(_alike(warnings_of(records)))),
        ("model", each([_model(r.model) for r in records])),
        *((key.replace("_", " "), each([e.get(key) for e in environments])) for key in keys),
        ("package version", each([r.code.get("version") for r in records])),
        ("fingerprint of the code", each([r.code.get("fingerprint") for r in records])),
        ("commit", each([r.code.get("commit") for r in records])),
        ("what Rényi accounting alone would give away", given_away(sources)),
        ("training time, all runs", f"{seconds / 3600:.2f} h" if records else "–"),
    ]
    return Table(
        name="measured",
        title="What ran, where",
        columns=[Column("what", "what"), Column("value", "value")],
        rows=[{"what": what, "value": value} for what, value in rows],
        caption=evidence.caption(),
    )


def _alike(warnings: list[str]) -> list[str]:
    """Warnings that differ by their counts alone as one, with every count: ``2, 3, 5 of them``."""
    counts: dict[tuple[str, ...], list[list[str]]] = {}
    for warning in warnings:
        words = tuple(re.split(r"\d+", warning))
        counts.setdefault(words, []).append(re.findall(r"\d+", warning))
    told = []
    for words, rows in counts.items():
        numbers = [", ".join(dict.fromkeys(column)) for column in zip(*rows, strict=True)]
        told.append("".join(map("".join, zip(words, [*numbers, ""], strict=True))))
    return told


def _model(model: dict[str, Any]) -> str:
    count = model.get("parameters")
    size = f", {count:,} parameters" if isinstance(count, int) else ""
    # Width is DPResNet's and the ResNets'; what other arms train has none.
    fixed = {arm.model for arm in ARMS.values() if arm.family != DPRESNET}
    width = "" if model.get("name") in fixed else f", width {model.get('width')}"
    return f"{model.get('name')}{width}{size}"


def profile_columns(evidence: Evidence) -> Table:
    """What each profile changes; everything else is the same in all."""
    names = list(PROFILES)
    rows = []
    for row in profile_table():
        cells = {name: _shown(row[name]) for name in names}
        rows.append({"field": str(row["field"]).replace("_", " "), **cells})
    return Table(
        name="profiles",
        title="Profiles",
        columns=[Column("field", "what changes"), *(Column(name, name) for name in names)],
        rows=rows,
        caption=f"This report: the {evidence.profile} profile.",
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)
