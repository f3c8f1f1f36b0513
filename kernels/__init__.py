"""Clip and noise in one call: PyTorch on any device, a fused Triton kernel on CUDA.

This folder is the package ``repro.kernels``, in a checkout through the link ``repro/kernels``: an
installed wheel leaves the name ``kernels`` to others. ``import kernels`` in a checkout gives the
same objects. Nothing is imported until a name is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "ClipReport": "repro.privacy.row_sum",
    "clip_and_noise": "repro.kernels.api",
    "use_on_cuda": "repro.kernels.api",
}

__all__ = ["ClipReport", "clip_and_noise", "use_on_cuda"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
