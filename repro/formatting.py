"""Numbers as people and programs read them."""

from __future__ import annotations

import json
import math
from typing import Any


def plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def small(value: float) -> str:
    """``1.9e-4``: three significant digits, no padded exponent."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def to_json(data: Any, *, ascii_only: bool = False) -> str:
    """Strict JSON: ∞ and NaN, which JSON lacks, become the strings "inf", "-inf", "nan".

    ascii_only: other characters as ``\\u`` escapes, which mean the same to any reader.
    """
    return json.dumps(_strict(data), ensure_ascii=ascii_only, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    return value
