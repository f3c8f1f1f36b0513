"""The server's word on why it ends a connection: a line for the hospital's log, and no more.

It is not signed and nothing follows from it, so it is shown as what the other end says.
"""

from __future__ import annotations

from repro.secagg.messages import Buffer

_MAGIC = b"RSNO"
_LONGEST = 400


def notice(reason: str) -> bytes:
    """magic ``RSNO`` · text, UTF-8, cut to 400 bytes."""
    return _MAGIC + reason.encode()[:_LONGEST]


def said(message: Buffer) -> str:
    """What a notice says, in printable characters; empty for any other message."""
    if bytes(message[:4]) != _MAGIC or len(message) > len(_MAGIC) + _LONGEST:
        return ""
    text = bytes(message[4:]).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
