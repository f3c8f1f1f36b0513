"""``repro secagg soak``: a federation whose processes are killed at random, and what came out."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from repro.cli.output import Outcome

EXAMPLE = """
Every party is a process of its own, over mutual TLS on loopback. Exit status 1 if a sum is not
that of the hospitals it names, if a round number was used twice, if the parties' logs do not
agree, or if both secrets of a hospital were opened in one round.

examples:
  repro secagg soak --rounds 5
  repro secagg soak --rounds 100 --kills 2 --folder soak-logs
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rounds", type=int, default=10, metavar="N", help="sums to reach (%(default)s)")
    add("--hospitals", type=int, default=6, metavar="K", help="hospitals (%(default)s)")
    add("--threshold", type=int, default=4, metavar="T", help="shares needed (%(default)s)")
    add("--neighbours", type=int, default=5, metavar="k", help="even, or K-1 (%(default)s)")
    add("--dimension", type=int, default=1000, metavar="N", help="vector length (%(default)s)")
    add("--kills", type=float, default=1.0, metavar="R", help="kill -9 per sum (%(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="of victims and moments (%(default)s)")
    add("--folder", type=Path, metavar="DIR", help="keep keys, results and logs there")
    parser.epilog = EXAMPLE


def execute(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg.deploy.soak import Plan, soak

    plan = Plan(
        rounds=arguments.rounds,
        hospitals=arguments.hospitals,
        threshold=arguments.threshold,
        neighbours=arguments.neighbours,
        dimension=arguments.dimension,
        kills=arguments.kills,
        seed=arguments.seed,
    )
    with tempfile.TemporaryDirectory(prefix="repro-soak-") as temporary:
        outcome = soak(arguments.folder or Path(temporary), plan, _report)
    data = asdict(outcome) | {"ok": not outcome.findings}
    lines = [f"{name:<16} {value}" for name, value in data.items() if name != "findings"]
    lines += [f"WRONG: {line}" for line in outcome.findings]
    return Outcome(data, "\n".join(lines), 1 if outcome.findings else 0)


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
