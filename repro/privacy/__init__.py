"""Differential privacy: the noisy step, its noise and sampling, update mechanisms, accounting.

Nothing is imported until a name is used: accounting must run where torch is not installed.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "AdaptiveClipping": "repro.privacy.adaptive_clipping",
    "ClipAndNoiseUpdate": "repro.privacy.mechanisms",
    "ClipUpdate": "repro.privacy.mechanisms",
    "Clipping": "repro.privacy.clipping",
    "DPSGD": "repro.privacy.dpsgd",
    "DPSGDReport": "repro.privacy.dpsgd",
    "DPSGDSettings": "repro.privacy.dpsgd",
    "EngineChoice": "repro.privacy.gate",
    "FederatedLedger": "repro.accounting.ledger",
    "FixedBatchGaussianEvent": "repro.accounting",
    "GaussianEvent": "repro.accounting",
    "Identity": "repro.privacy.mechanisms",
    "MechanismReport": "repro.privacy.mechanisms",
    "NoisySum": "repro.privacy.step",
    "PrivateTraining": "repro.privacy.private_training",
    "make_private": "repro.privacy.planning",
    "NonPrivateEvent": "repro.accounting",
    "PoissonSampledGaussianEvent": "repro.accounting",
    "PoissonSampler": "repro.privacy.sampling",
    "RankFailed": "repro.privacy.ranks",
    "RDPAccountant": "repro.accounting",
    "add_lora": "repro.privacy.lora",
    "banded_event": "repro.accounting",
    "calibrate_noise_multiplier": "repro.accounting",
    "check_engine": "repro.privacy.gate",
    "clipped_noisy_sum": "repro.privacy.step",
    "fix": "repro.privacy.norm_replacement",
    "gaussian_epsilon": "repro.accounting",
    "local_dp_mod_sigma": "repro.privacy.mechanisms",
    "merge_lora": "repro.privacy.lora",
    "per_sample_gradients": "repro.privacy.per_sample",
    "prefix_sum_error": "repro.privacy.banded_noise",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
