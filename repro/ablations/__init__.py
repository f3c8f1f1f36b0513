"""Ablations: one decision of the setting changed at a time.

``repro ablate --list`` explains them, ``repro ablate NAME`` makes the runs (in the same store as
the matrix') and draws ``OUT/ablations/NAME.*``; ``repro ablate all`` does so for every one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro.ablations import dpsgd_tuning, engine, features, precision
from repro.ablations.base import Ablation, by_arm
from repro.ablations.catalogue import SERIES, VARIANTS
from repro.errors import InputError
from repro.files import read_toml

# They say more than their rows.
_CONCLUDING: dict[str, Any] = {
    "engine": engine,
    "precision": precision,
    "dpsgd-tuning": dpsgd_tuning,
    "features": features,
}


def _made(name: str, said: dict[str, Any]) -> Ablation:
    own: Any = _CONCLUDING.get(name)
    lists = {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
    return Ablation(
        name=name,
        variants=VARIANTS.get(name) or own.variants,
        series=SERIES.get(name, by_arm),
        conclude=own and own.conclude,
        **said | lists,
    )


_FILE = Path(__file__).with_name("catalogue.toml")
ABLATIONS = {name: _made(name, said) for name, said in read_toml(_FILE).items()}
NAMES = tuple(ABLATIONS)


def get_ablation(name: str) -> Ablation:
    if name not in ABLATIONS:
        raise InputError("ablation", name, "one of " + ", ".join(NAMES) + ", or all")
    return ABLATIONS[name]
