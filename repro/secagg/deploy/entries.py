"""What a log's lines hold: every event's fields, and what each may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from repro.secagg.keys import PUBLIC_BYTES
from repro.secagg.protocols import BOUNDED
from repro.secagg.rounds import PHASES, SERVER, SESSION_BYTES

Holds = Callable[[Any], bool]


def _whole(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**64


def _hex(size: int) -> Holds:
    digits = set("0123456789abcdef")
    return lambda value: isinstance(value, str) and len(value) == 2 * size and set(value) <= digits


def _round(value: Any) -> bool:
    return _whole(value, least=1)


def _hospital(value: Any) -> bool:
    return _whole(value) and value < SERVER


def _hospitals(value: Any) -> bool:
    return isinstance(value, list) and all(map(_hospital, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _one_of(*choices: str) -> Holds:
    return lambda value: isinstance(value, str) and value in choices


_DIGEST, _PUBLIC, _SESSION = _hex(32), _hex(PUBLIC_BYTES), _hex(SESSION_BYTES)
_WHERE: dict[str, Holds] = {"session": _SESSION, "round": _round}
_COMMON: dict[str, Holds] = {
    "entry": _whole,
    "time": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "event": _text,
    "previous": _DIGEST,
}
# Event -> its fields. Those in _OPTIONAL may be missing.
EVENTS: Mapping[str, Mapping[str, Holds]] = {
    "opened": {
        "format": _text,
        "public": _PUBLIC,
        "torn_bytes": _whole,
        "party": _one_of("server", "hospital"),
        "continues": _DIGEST,
    },
    "begun": {**_WHERE, "serial": _whole},
    "message": {
        **_WHERE,
        "way": _one_of("sent", "received"),
        "direction": _one_of("up", "down"),
        "phase": _one_of(*PHASES, "open", *BOUNDED.phases),
        "hospital": _hospital,
        "bytes": _whole,
        "digest": _DIGEST,
    },
    "opened secrets": {**_WHERE, "self_masks": _hospitals, "mask_keys": _hospitals},
    "done": _WHERE,
    "sum": {**_WHERE, "survivors": _hospitals},
    "failed": {**_WHERE, "reason": _text},
    "rotated": {"next": _PUBLIC},
}
_OPTIONAL = {"continues"}


def wrong_field(entry: Mapping[str, Any]) -> str:
    """The first field of an entry (its signature aside) that is missing, unknown or not what it
    has to be; empty if there is none."""
    event = entry.get("event")
    if not isinstance(event, str) or event not in EVENTS:
        return "event"
    fields = {**_COMMON, **EVENTS[event]}
    for name, holds in fields.items():
        if name not in entry:
            if name not in _OPTIONAL:
                return name
        elif not holds(entry[name]):
            return name
    return next((name for name in entry if name not in fields), "")
