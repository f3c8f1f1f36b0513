"""What a command prints: one JSON object, or text for a person. Progress goes to stderr."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from repro.cli.legible import takes_utf8
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
        print(_json(outcome.data) if as_json else outcome.text, file=sys.stdout, flush=True)
    except OSError as problem:
        # The interpreter flushes once more at exit, and must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(problem, BrokenPipeError):  # `| head` has what it wanted
            problem.filename = "standard output"
            raise


def _json(data: dict[str, Any]) -> str:
    """In UTF-8, which is what a reader expects (RFC 8259, section 8.1), else in ASCII, which is
    part of it. So too where a file name holds bytes that are no text."""
    text = to_json(data)
    lossless = takes_utf8(sys.stdout) and not any("\ud800" <= c <= "\udfff" for c in text)
    return text if lossless else to_json(data, ascii_only=True)
