"""``repro forensics``: Flower's releases executed, before and after the noise was mended."""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path

from repro.cli import OneLineParser
from repro.cli.output import Outcome, say
from repro.cli.results import DEFAULT_OUT
from repro.files import writable_folder, write_whole
from repro.forensics.plan import RELEASES, Settings
from repro.formatting import to_json
from repro.runs.provenance import code_version, environment


def configure(parser: OneLineParser) -> None:
    parser.explain(releases=" and ".join(RELEASES))
    parser.add_argument(
        "--out", default=DEFAULT_OUT, metavar="DIR", help=f"for the record (default {DEFAULT_OUT})"
    )
    parser.add_argument(
        "--keep", metavar="DIR", help="keep the environments in DIR, and use those that are there"
    )


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.forensics.environments import ask
    from repro.forensics.record import as_record
    from repro.report.items.table8_forensics import forensics_table
    from repro.report.table import markdown

    settings, out = Settings(), writable_folder("out", Path(arguments.out))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.keep:
            folder = writable_folder("keep", Path(arguments.keep)).resolve()
        answers = []
        for release in RELEASES:
            work = Path(scratch) / f"work-{release}"
            work.mkdir()
            answers.append(ask(release, settings, folder, work, say))
    say("our own code: running")
    where = {"environment": environment(("torch", "numpy")), "code": code_version()}
    record = as_record(answers, settings, where, datetime.date.today().isoformat())
    write_whole(out / "forensics.json", to_json(record) + "\n")
    return Outcome(record, markdown(forensics_table(record)))
