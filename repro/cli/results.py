"""``repro table``, ``repro figure``, ``repro report``: draw from the run store, train nothing."""

from __future__ import annotations

import argparse
from typing import Any

from repro.cli import OneLineParser
from repro.cli.output import Outcome
from repro.errors import InputError
from repro.runs.profiles import PROFILES
from repro.runs.store import RunStore

DEFAULT_OUT = "reproduction"


def configure(parser: OneLineParser) -> None:
    from repro.report.items import FIGURES, TABLES

    add, command = parser.add_argument, parser.get_default("command")
    if command != "report":
        items = TABLES if command == "table" else FIGURES
        parser.explain(items={f"{one.number:<2} {one.name}": one.title for one in items})
        add("item", metavar="N|NAME", help=f"which {command}: see below")
    else:
        parts = "also refresh the generated parts of README.md, RESULTS.md, REPRODUCE.md, …"
        add("--update-docs", action="store_true", help=parts)
    add("--out", default=DEFAULT_OUT, metavar="DIR", help=f"where to draw (default {DEFAULT_OUT})")
    elsewhere = (
        "the run store's folder, where it is not --out; its partition, bench and ablations "
        "are found too"
    )
    add("--runs", metavar="DIR", help=elsewhere)
    profiles = f"{', '.join(PROFILES)} (default: of those with runs, the one that trains most)"
    add("--profile", metavar="P", help=profiles)


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.report.content import write_report
    from repro.report.items import draw, find
    from repro.report.sources import Sources

    item = None
    if arguments.command != "report":
        item = find(arguments.command, arguments.item)
    sources = Sources.of(arguments.out, runs=arguments.runs, profile=arguments.profile)
    _check_not_empty(sources, arguments)
    evidence = sources.evidence
    facts: dict[str, Any] = {"profile": evidence.profile, "data": evidence.dataset_caption}
    if item is None:
        paths = write_report(sources)
        if arguments.update_docs:
            from repro.report.documents import update_documents

            paths += update_documents(sources)
    else:
        paths = draw(item, sources)
        facts["number"], facts["name"] = item.number, item.name
    shown = [str(path) for path in paths]
    return Outcome({"path": shown[0], "paths": shown, **facts}, "\n".join(shown))


def _check_not_empty(sources: Any, arguments: argparse.Namespace) -> None:
    """Refuse a folder with nothing to draw: a mistyped name would give empty tables."""
    from repro.report.sources import SIDE

    if sources.evidence.records:
        return
    option = "out" if arguments.runs is None else "runs"
    place = getattr(arguments, option)
    store = RunStore(place, written=False)
    profiles = sorted({record.profile for record in store.all()})
    if profiles and arguments.profile is not None:
        wanted = f"one with whole runs in {place}, which has some of {profiles}"
        raise InputError("profile", arguments.profile, wanted)
    if not any(next(root.glob(pattern), None) for root in sources.places for pattern in SIDE):
        wanted = f"a folder with runs ({place}/runs), as `repro reproduce` leaves it"
        raise InputError(option, place, wanted)
