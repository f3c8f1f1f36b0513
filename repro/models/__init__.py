"""Image classifiers. Nothing is imported until a name is used, so ``import repro`` stays light."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "DPResNet": "repro.models.dpresnet",
    "ResNet9": "repro.models.resnet9",
    "ScatteringLinear": "repro.models.scattering",
    "build_model": "repro.models.registry",
    "resnet18": "repro.models.torchvision_resnet",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
