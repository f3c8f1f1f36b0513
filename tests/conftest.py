"""Every test session checks jaxtyping shapes with beartype, on the whole package."""

from __future__ import annotations

import os

# Kernels run through Triton's interpreter where there is no CUDA device; the variable must be
# set before triton is first imported.
if not os.path.exists("/dev/nvidia0"):
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Test processes share the cores among them (pytest -n); one thread each keeps them from queueing.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

_HOOK = install_import_hook("repro", "beartype.beartype")

# One profile for all: generated cases are the same in every run, and a slow shared machine is
# no reason to fail.
settings.register_profile(
    "repro",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repro")


@pytest.fixture(autouse=True)
def _noise_keys_of_its_own() -> None:
    """Tests share a process and public seeds, not the noise: each starts with no key used."""
    used = sys.modules.get("repro.privacy.noise_key")
    if used is not None:
        used.noise_keys.clear()
