"""``repro secagg committee``: how likely chance places colluders and drop-outs badly."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from repro.cli.output import Outcome


def configure_committee(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Upper bounds, over the random order of the neighbours' ring. Privacy fails if the server\n"
        "and the colluders learn more than the sum of the honest hospitals; a round that is lost\n"
        "reveals nothing.\n\n"
        "example:\n"
        "  repro secagg committee --hospitals 100 --neighbours 20 --threshold 14 --colluders 5 "
        "--drop-rate 0.05"
    )
    add = parser.add_argument
    add("--hospitals", type=int, default=10, metavar="K", help="hospitals (%(default)s)")
    add("--neighbours", type=int, default=4, metavar="k", help="even, or K-1 (%(default)s)")
    add("--threshold", type=int, default=4, metavar="T", help="shares needed (%(default)s)")
    add("--colluders", type=int, default=0, metavar="C", help="beside the server (%(default)s)")
    add("--drop-rate", type=float, default=0.0, metavar="D", help="lost, each alone (%(default)s)")
    add("--quorum", type=int, default=0, metavar="Q", help="confirmers needed (the usual number)")
    add("--rounds", type=int, default=1, metavar="N", help="in any of N rounds (%(default)s)")


def execute_committee(arguments: argparse.Namespace) -> Outcome:
    from repro.secagg import committee_risk

    risk = committee_risk(
        arguments.hospitals,
        arguments.neighbours,
        arguments.threshold,
        arguments.colluders,
        arguments.drop_rate,
        quorum=arguments.quorum,
        rounds=arguments.rounds,
    )
    lines = [
        f"quorum                 {risk.quorum} of {risk.confirmer_count} confirmers",
        f"both secrets exposed   {risk.secrets:.3g}",
        f"two sets confirmed     {risk.confirmers:.3g}",
        f"graph in pieces        {risk.pieces:.3g}",
        f"privacy, any of these  {risk.privacy:.3g}",
        f"round lost             {risk.lost:.3g}",
    ]
    return Outcome(asdict(risk), "\n".join(lines))
