"""Ablations: one decision of the setting changed at a time, one file each.

``repro ablate --list`` explains them, ``repro ablate NAME`` makes the runs (in the same store as
the matrix') and draws ``OUT/ablations/NAME.*``; ``repro ablate all`` does so for every one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from repro.errors import InputError

if TYPE_CHECKING:
    from repro.ablations.base import Ablation

NAMES = (
    "normalisation",
    "downsampling",
    "skips",
    "clip-norm",
    "epsilon",
    "local-epochs",
    "training-length",
    "batch-size",
    "hospitals",
    "partition",
    "shares",
    "levels",
    "clipping",
    "engine",
    "precision",
    "dpsgd-tuning",
    "features",
)


def get_ablation(name: str) -> Ablation:
    if name not in NAMES:
        raise InputError("ablation", name, "one of " + ", ".join(NAMES) + ", or all")
    ablation: Ablation = _module(name).ABLATION
    return ablation


def about(name: str) -> dict[str, str]:
    """``Command``, ``Cost and hardware`` and ``Expected``, from the module's docstring."""
    from repro.about import docstring_parts

    return docstring_parts(_module(name).__doc__)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
