"""What a run is refused for, before anything is made."""

from __future__ import annotations

import torch

from repro.data import Dataset
from repro.errors import InputError
from repro.federated.parallel.ranks import Ranks
from repro.runs.profiles import Profile
from repro.runs.settings import RunSettings


def check_synthetic(dataset: Dataset, profile: Profile, asked: str) -> None:
    """The paper profile takes the synthetic stand-in only when it was asked for by name."""
    if dataset.synthetic and not profile.synthetic_by_default and asked != "synthetic":
        raise InputError(
            "data",
            asked,
            f"real images for profile {profile.name} (set BLOODMNIST_NPZ, or --data synthetic)",
        )


def check_ranks(settings: RunSettings, ranks: Ranks) -> None:
    """A rank without a hospital would have nothing to do: refuse it."""
    training = settings.hospitals if settings.scope == "federated" else 1
    if ranks.size > training:
        expected = f"at most {training}, the hospitals that train in this arm"
        raise InputError("ranks", ranks.size, expected)


def check_device(name: str | None) -> str | None:
    """A device that exists, or one clear line."""
    if name is None:
        return None
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise InputError("device", name, "cpu, or a CUDA device of this machine") from problem
    return name
