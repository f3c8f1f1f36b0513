"""Image classifiers. Nothing is imported until a name is used, so ``import repro`` stays light."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "DPResNet": "repro.models.dpresnet",
}

__all__ = ["DPResNet"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
