"""The whitening of features as a file beside the plan, so that all mean the same by a feature.

Each party could work it out again, but another kind of processor turns axes along which drawn
images hardly vary (``repro.federated.whitening``). It touches no record and no guarantee: whatever
the features are, they are clipped.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import InputError
from repro.federated.whitening import Whitening
from repro.files import write_whole


def whitening_file(plan: Path) -> Path:
    return plan.with_suffix(".whitening")


def write_whitening(plan: Path, whitening: Whitening) -> None:
    """(R, F + 2) float32, row by row, little-endian; nothing else."""
    write_whole(whitening_file(plan), whitening.packed().tobytes())


def whitening_facts(whitening: Whitening | None) -> dict[str, Any] | None:
    """What a plan states of it; None where there is nothing to whiten."""
    if whitening is None:
        return None
    digest = hashlib.sha256(whitening.packed().tobytes()).hexdigest()
    return {"shape": list(whitening.axes.shape), "sha256": digest}


def read_whitening(plan: Path, stated: Any) -> Whitening | None:
    """The one that a plan states (``whitening_facts``). InputError for another, or none."""
    if stated is None:
        return None
    path = whitening_file(plan)
    try:
        rows, columns = stated["shape"]
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != stated["sha256"]:
            raise ValueError("its SHA-256 is another")
        return Whitening.unpacked(np.frombuffer(content, "<f4").reshape(rows, columns + 2))
    except (OSError, KeyError, TypeError, ValueError) as problem:
        expected = f"the operator's file that goes with the plan ({problem})"
        raise InputError("whitening", str(path), expected) from None
