"""The differential-privacy core. Names are loaded when used, so accounting needs no torch."""

from __future__ import annotations

import importlib
from typing import Any

_WHERE = {
    "PoissonSampledGaussianEvent": "repro.privacy.accounting",
    "FixedBatchGaussianEvent": "repro.privacy.accounting",
    "GaussianEvent": "repro.privacy.accounting",
    "NonPrivateEvent": "repro.privacy.accounting",
    "RDPAccountant": "repro.privacy.accounting",
    "calibrate_noise_multiplier": "repro.privacy.accounting",
    "gaussian_epsilon": "repro.privacy.accounting",
    "FederatedLedger": "repro.privacy.accounting.ledger",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
