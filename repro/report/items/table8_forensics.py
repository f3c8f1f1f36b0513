"""Table 8: released Flower, executed: whether it adds noise, and which arrangements can run.

Command: ``repro table 8``; what was executed is that of ``repro forensics`` (``make forensics``),
kept in ``OUT/forensics.json``. Cost and hardware: a second to draw; executing takes a minute or two
on one core, a network, and 320 MB of disk until it ends. Expected: LocalDpMod of Flower 1.13.1 adds
nothing and says it did, that of 1.14.0 adds σ = 0.699; local DP with secure aggregation ends in a
KeyError in both orders of the public history, and runs in that of Flower's documentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from repro.forensics.plan import ARRANGEMENTS, RELEASES, Arrangement, Settings
from repro.formatting import plain, small
from repro.report.sources import Sources
from repro.report.table import NOT_RUN, Column, Table

TITLE = "Table 8. Flower's releases, executed beside our code"
OURS = {"clip": "ours, clipping alone", "noise": "ours, with the noise"}
NOTES = (
    "A run that fails so still comes to its end: the error goes to the server, which halts the "
    "secure aggregation and leaves the model as it was, round after round.",
    "The arrangements are rebuilt from the description of the authors' public history; nothing of "
    "theirs is copied or executed. That the third commit on also imports a renamed class is read, "
    "not executed [code].",
    "Ours: every hospital clips (and adds noise) before the secure sum, or before the plain mean "
    "where the row has the default workflow.",
    "What the authors had installed, and what produced the paper's numbers, is not known.",
)


def build(sources: Sources) -> list[Table]:
    return [forensics_table(sources.side("forensics"))]


def forensics_summary(sources: Sources) -> Table:
    """Table 8 for the report, whose first screen says what the notes say."""
    full = build(sources)[0]
    return replace(full, notes=(), caption=f"{full.caption} Notes: tables/table8.md.")


def forensics_table(record: dict[str, Any] | None) -> Table:
    """A column for every release and for ours with and without noise; ``not run`` throughout
    where there is no record."""
    record = record or {}
    releases = {one["release"]: one for one in record.get("releases", ())}
    found = releases | record.get("ours", {})
    columns = {name: f"Flower {name} [flwr]" for name in releases or RELEASES} | OURS
    settings = record.get("settings") or Settings().question()
    rows = [
        {"what": what} | {key: cell(found[key]) if key in found else NOT_RUN for key in columns}
        for what, cell in _rows(settings)
    ]
    return Table(
        name="table8",
        title=TITLE,
        columns=[Column("what", "what"), *(Column(key, label) for key, label in columns.items())],
        rows=rows,
        caption=_caption(record),
        notes=NOTES,
        data=record or None,
    )


def _rows(settings: dict[str, Any]) -> list[tuple[str, Callable[[dict[str, Any]], str]]]:
    """What stands at the left of a row, and its cell from what one contestant gave."""

    def outcome(arrangement: Arrangement) -> Callable[[dict[str, Any]], str]:
        own = "secure" if arrangement.secure else "default"  # ours knows no order of modifiers

        def cell(one: dict[str, Any]) -> str:
            found = one["arrangements"]
            return _outcome(found.get(arrangement.name) or found[own], settings["rounds"])

        return cell

    long, clip = settings["norm"], settings["clip_norm"]
    return [
        ("deviation of the noise on one fixed update", lambda one: _deviation(one["modifier"])),
        ("deviation that its log states", lambda one: _said(one["modifier"])),
        (
            f"L2 norm sent, of an update of {long:g} clipped at {clip:g}",
            lambda one: f"{one['modifier']['norm']:.2f}",
        ),
        *((f"two rounds: {one.words}", outcome(one)) for one in ARRANGEMENTS),
    ]


def _deviation(modifier: dict[str, Any]) -> str:
    return "0 (every draw the same)" if modifier["all_equal"] else f"{modifier['deviation']:.4f}"


def _said(modifier: dict[str, Any]) -> str:
    said = modifier.get("said_deviation")
    return "–" if said is None else f"{said:.4f}"


def _outcome(found: dict[str, Any], rounds: int) -> str:
    """That it runs and what the model got beyond clipping; or what failed where, and what then."""
    changed, failures = found["rounds_changed"], found.get("failures", ())
    if changed == rounds and not failures:
        value = found["deviation"]
        return f"runs; beyond the clipped mean {small(value) if value < 1e-3 else plain(value)}"
    lines = [
        f"{one['exception']} {one['message']} in {one['where'].partition('.')[0]} at {one['stage']}"
        for one in failures
    ]
    if found.get("raised"):
        lines.append(f"server: {found['raised']['exception']} {found['raised']['message']}")
    return "\n".join([*lines, f"{changed} of {rounds} rounds change the model"])


def _caption(record: dict[str, Any]) -> str:
    how = "`repro forensics --out OUT`"
    if not record:
        return f"Nothing was executed here: {how}."
    settings, wanted, first = record["settings"], record["documented"], record["releases"][0]
    values = record["ours"]["noise"]["modifier"]["values"]
    fewest = sorted({str(one["fewest_hospitals"]) for one in record["releases"]})
    count, size = settings["hospitals"], sum(map(math.prod, settings["shapes"]))
    return (
        f"Documented noise: σ = {wanted['update']:.6f} on an update, {wanted['mean']:.4f} on the "
        f"mean of {count} [calc]; from {values:,} values of one update, to one part in "
        f"{plain(math.sqrt(2 * values))}. {count} clients of {size:,} parameters; SecAgg+ with the "
        f"authors' {settings['shares']} shares and threshold {settings['threshold']} [code] was "
        f"found to take no fewer than {'/'.join(fewest)}. Seed {settings['seed']}. "
        f"{how}, {record['date']}, {record['environment']['platform']}, Python {first['python']}, "
        f"NumPy {first['versions']['numpy']}."
    )
