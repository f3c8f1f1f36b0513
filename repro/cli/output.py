"""What a command prints: one JSON object, or text for a person. Progress goes to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import dataclass
from typing import Any


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
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def to_json(data: Any) -> str:
    """Strict JSON: ∞ and NaN, which JSON lacks, become the strings "inf", "-inf", "nan"."""
    return json.dumps(_strict(data), ensure_ascii=False, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    return value
