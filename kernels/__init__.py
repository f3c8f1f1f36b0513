"""Clip and noise in one call: PyTorch on any device, a fused Triton kernel on CUDA.

Nothing is imported until a name is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "ClipReport": "kernels.reference",
    "clip_and_noise": "kernels.api",
}

__all__ = ["ClipReport", "clip_and_noise"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
