"""What a command prints: one JSON object, or text for a person. Progress goes to stderr.

Where stdout is not UTF-8 no character stops a command, and no number changes. A terminal or a pipe
may be cp1252, latin-1 or ASCII (``LC_ALL=C``, ``PYTHONIOENCODING``), which have no ε. What an
encoding lacks is spelt in ASCII: ``epsilon``, ``<=``, ``10^-12``. A reader of ``--json`` gets
escapes instead (``to_json``). Files are UTF-8 wherever they are written.
"""

from __future__ import annotations

import codecs
import io
import itertools
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from repro.formatting import to_json

_HANDLER = "repro.spelt"
# What Python sets by itself; any other is the user's choice (``PYTHONIOENCODING=ascii:replace``).
_DEFAULTS = ("strict", "surrogateescape", "backslashreplace")
_PAIRS = "−- –- —- ‘' ’' “\" ”\" ×x ÷/ ⁄/ ·* ⋅* ≈~ ∝~ µu"
_ASCII = {pair[0]: pair[1:] for pair in _PAIRS.split()}
_ASCII |= {"…": "...", "±": "+/-", "≤": "<=", "≥": ">=", "≠": "!=", "→": "->", "←": "<-"}
_ASCII |= {"∞": "inf", "√": "sqrt", "‖": "||"}


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


def named_lines(data: Mapping[str, Any], width: int) -> str:
    """A line for every value that is known, its name before it."""
    known = {name: value for name, value in data.items() if value is not None}
    return "\n".join(f"{name:<{width}} {value}" for name, value in known.items())


def say(line: str) -> None:
    """A line of progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def make_legible() -> None:
    """From here on stdout and stderr take any text; a stream that has no encoding is left."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in _DEFAULTS and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_HANDLER)


def takes_utf8(stream: io.TextIOBase | TextIO) -> bool:
    """Whether ``stream`` writes UTF-8; one without bytes (``StringIO``) takes any text as well."""
    encoding = getattr(stream, "encoding", None)
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


def _spell(problem: UnicodeError) -> tuple[str | bytes, int]:
    """The ``codecs`` error handler: what to write, and where to go on."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    lacking = problem.object[problem.start : problem.end]
    if _from_bytes(lacking[0]):  # of a file name that is no text in this locale: as it was given
        raw = bytes(ord(c) - 0xDC00 for c in itertools.takewhile(_from_bytes, lacking))
        return raw, problem.start + len(raw)
    text = "".join(itertools.takewhile(lambda c: not _from_bytes(c), lacking))
    return "".join(_spelt(text)), problem.start + len(text)


def _spelt(text: str) -> Iterator[str]:
    """``text`` in ASCII, in parts. Powers keep their ``^``: 10⁹ must never read as 109."""
    for raised, run in itertools.groupby(text, _is_raised):
        yield from ["^"] * raised
        yield from map(_character, run)


def _character(character: str) -> str:
    if character in _ASCII:
        return _ASCII[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK ") and " LETTER " in name:
        letter = name.rpartition(" LETTER ")[2]
        return letter.capitalize() if "CAPITAL" in name else letter.lower()
    plain = unicodedata.normalize("NFKD", character)
    spelt = "".join(_ASCII.get(c, c) for c in plain if not unicodedata.combining(c))
    return spelt.encode("ascii", "backslashreplace").decode("ascii")


def _is_raised(character: str) -> bool:
    return unicodedata.decomposition(character).startswith("<super>")


def _from_bytes(character: str) -> bool:
    """Whether it stands for a byte of a file name that could not be decoded (PEP 383)."""
    return "\udc80" <= character <= "\udcff"


codecs.register_error(_HANDLER, _spell)
