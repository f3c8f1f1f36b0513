"""``repro arms``: the experiment matrix, a line each."""

from __future__ import annotations

import argparse

from repro.cli.output import Outcome
from repro.runs.arms import ARMS


def configure(parser: argparse.ArgumentParser) -> None:
    """It takes no arguments."""


def execute(arguments: argparse.Namespace) -> Outcome:
    rows = [
        {
            "name": arm.name,
            "description": arm.description,
            "trainer": arm.trainer,
            "mechanism": arm.mechanism,
            "aggregator": arm.aggregator,
            "private": arm.private,
        }
        for arm in ARMS.values()
    ]
    width = max(map(len, ARMS))
    text = "\n".join(f"{arm.name:<{width}}  {arm.description}" for arm in ARMS.values())
    return Outcome({"arms": rows}, text)
