"""Ablations: one decision of the setting changed at a time.

``repro ablate --list`` explains them, ``repro ablate NAME`` makes the runs (in the same store as
the matrix') and draws ``OUT/ablations/NAME.*``; ``repro ablate all`` does so for every one.
"""

from __future__ import annotations

from repro.ablations import dpsgd_tuning, engine, features, precision
from repro.ablations.base import Ablation
from repro.ablations.catalogue import CATALOGUE
from repro.errors import InputError

_CONCLUDING = (engine, precision, dpsgd_tuning, features)  # say more than their rows
_ALL: tuple[Ablation, ...] = (*CATALOGUE, *(each.ABLATION for each in _CONCLUDING))
ABLATIONS = {one.name: one for one in _ALL}
NAMES = tuple(ABLATIONS)


def get_ablation(name: str) -> Ablation:
    if name not in ABLATIONS:
        raise InputError("ablation", name, "one of " + ", ".join(NAMES) + ", or all")
    return ABLATIONS[name]
