"""What a module's docstring says of its command, its cost and what to expect of it."""

from __future__ import annotations

import re


def docstring_parts(text: str | None) -> dict[str, str]:
    """``Command``, ``Cost and hardware`` and ``Expected``, as far as a docstring says them."""
    words = " ".join((text or "").split())
    parts = re.split(r"(?:^|(?<=[.:?] ))(Command|Cost and hardware|Expected): ", words)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
