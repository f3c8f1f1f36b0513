"""What a command prints: one JSON object, or text for a person. Progress goes to stderr."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from repro.formatting import to_json


@dataclass(frozen=True)
class Outcome:
    """A command's result: ``data`` for ``--json``, ``text`` for people, ``status`` to exit with.

    shown: False where another process of the same command speaks for all.
    """

    data: dict[str, Any]
    text: str
    status: int = 0
    shown: bool = True


def emit(outcome: Outcome, *, as_json: bool) -> None:
    if not outcome.shown:
        return
    try:
        print(to_json(outcome.data) if as_json else outcome.text, file=sys.stdout, flush=True)
    except OSError as problem:
        # The interpreter flushes once more at exit, and must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(problem, BrokenPipeError):  # `| head` has what it wanted
            problem.filename = "standard output"
            raise
