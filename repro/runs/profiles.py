"""Profiles: how much of the paper's setting a run takes on.

``smoke`` proves the plumbing, ``quick`` draws every table and figure on a laptop, ``overnight``
trains a narrower network for a real length on a CPU, ``paper`` is the setting of arXiv
2412.00687. What a profile changes is exactly the fields below, and to what stands in profiles.toml;
docs/profiles.md prints both as one table. Private and other arms of a profile always train equally
long.

DP-SGD's settings were chosen on validation images; docs/settings-search.md lists every trial.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from repro.checks import check_choice
from repro.files import read_toml


@dataclass(frozen=True)
class Profile:
    """The differences between profiles, and nothing else; the defaults are the paper's."""

    name: str
    summary: str
    width: int = 64  # channels of DPResNet's first convolution
    rounds: int = 50
    local_epochs: int | float = 3  # a round; a fraction takes that part of the images
    batch_size: int = 32  # images of an ordinary local step
    seeds: tuple[int, ...] = (0, 1, 2)
    hospitals: tuple[int, ...] = (10, 20)
    train_stride: int = 1  # every n-th training image
    test_stride: int = 1  # every n-th test image
    threads: int = 1  # of one run; 0: all. With 1, `repro reproduce` runs one run per core
    dpsgd_expected_batch: int = 128  # images a Poisson step draws on average
    dpsgd_learning_rate: float = 1e-3
    dpsgd_optimizer: str = "adam"
    dpsgd_momentum: float = 0.0  # of "sgd", anew each round
    dpsgd_clip_norm: float = 1.0  # L2, of one image's gradient
    protocol_every: int = 1  # with shared noise: every n-th sum runs the whole protocol; same bits
    synthetic_by_default: bool = False  # may "auto" data fall back to the synthetic stand-in?
    # Of training; "auto": bf16-mixed for arms without noise where the machine is fast in it.
    precision: str = "float32"
    arms: tuple[str, ...] = ()  # the arms of a whole campaign, most telling first; (): all
    first: tuple[str, ...] = ()  # of all arms, those that are run before the others


def _of(name: str, given: dict[str, Any]) -> Profile:
    lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    return Profile(name, **given | lists)


FILE = Path(__file__).with_name("profiles.toml")
PROFILES = {name: _of(name, given) for name, given in read_toml(FILE).items()}


# What arms with another model than DPResNet have instead: scattering's linear layer is so cheap
# that every profile but smoke gives it SCATTERING_EPOCHS local epochs and all test images.
SCATTERING_EPOCHS = 20
SCATTERING_SEARCH = 40  # about as many runs chose them: docs/settings-search.md
NEWTON_SEARCH = 687  # settings of second-order steps that were simulated: docs/feature-search.md
_SCATTERING: dict[str, Any] = {
    "batch_size": 32,
    "dpsgd_expected_batch": 128,
    "dpsgd_learning_rate": 2.0,
    "dpsgd_optimizer": "sgd",
    "dpsgd_momentum": 0.9,
    # Gradients are some hundred times longer: most are clipped, so mainly their direction counts.
    "dpsgd_clip_norm": 0.1,
}
# One step on pooled images has as many as the hospitals' steps together, so less noise.
_SCATTERING_POOLED: dict[str, Any] = {"dpsgd_expected_batch": 1024, "dpsgd_learning_rate": 4.0}


# With shared noise a batch is of all hospitals together. Chosen on validation images:
# docs/settings-search.md.
_SCATTERING_SHARED: dict[str, Any] = {"dpsgd_expected_batch": 2048, "dpsgd_learning_rate": 4.0}
# Of DPResNet, and in smoke of all; the last two are guesses, of 9 and 5 steps an epoch: the more
# records in a sum, the fewer sums of 4.9 million numbers.
_SHARED_BATCHES = {"smoke": 48, "quick": 256, "overnight": 1024, "paper": 2048}
# Second-order training: the mean, the second moments, twelve steps on all records, each a round.
# Chosen on validation images: docs/feature-search.md. A gradient's mean is some thousandth of one
# record's (576 or 1,024 features of equal weight), hence the rates.
_NEWTON: dict[str, Any] = {
    "rounds": 14,
    "local_epochs": 1,
    "dpsgd_optimizer": "sgd",
    "dpsgd_momentum": 0.0,
    "dpsgd_clip_norm": 0.25,
}
_NEWTON_RATES = {1.0: 480.0, 3.0: 1300.0, 6.0: 2500.0, 8.0: 3200.0}  # by ε
_TURNED, _DRAWN = "turned-filters", "drawn-choice"
_RATES_OF = {
    _TURNED: {1.0: 800.0, 3.0: 2000.0, 6.0: 3500.0, 8.0: 4400.0},
    # Chosen without any private image: paper_results/settings_from_drawn_images.json.
    _DRAWN: {1.0: 1000.0, 3.0: 2000 * 2**0.5, 6.0: 4000 * 2**0.5, 8.0: 8000.0},
}
_DRAWN_CLIP_NORM = 0.125
# Logistic regression on the same features, solved to the end. Of {1e-5, 3e-6, 1e-6, 3e-7, 1e-7},
# the ridge that was best on the hospitals' held-out images (10 and 20 hospitals, seeds 0 to 2).
LOGISTIC_RIDGE = 3e-6
_NEWTON_IGNORES = ("width", "batch_size", "dpsgd_expected_batch", "protocol_every")


def for_model(
    profile: Profile,
    model: str,
    scope: str = "federated",
    trainer: str = "adam",
    epsilon: float | None = None,
) -> Profile:
    """``profile`` as arms with ``model``, ``scope``, ``trainer`` and ``epsilon`` take it."""
    smoke = profile.name == "smoke"
    every_image: dict[str, Any] = {} if smoke else {"test_stride": 1}
    if trainer == "logistic":
        return replace(profile, rounds=1, local_epochs=1, **every_image)
    if trainer == "searched-newton":  # clip norm and rate are each trial's own
        return replace(profile, **_NEWTON | {"rounds": 1} | every_image)
    if trainer in ("shared-newton", "newton"):  # the twin without privacy: at the rates of ε = 6
        rates = _RATES_OF.get(model, _NEWTON_RATES)
        changes = _NEWTON | {"dpsgd_learning_rate": rates.get(epsilon or 0.0, rates[6.0])}
        if model == _DRAWN:
            changes["dpsgd_clip_norm"] = _DRAWN_CLIP_NORM
        return replace(profile, **changes | ({"rounds": 4} if smoke else every_image))
    scattering, shared = model == "scattering", trainer == "shared-dpsgd"
    changes = dict(_SCATTERING) if scattering else {}
    if scattering and not smoke:
        changes |= {"local_epochs": SCATTERING_EPOCHS / profile.rounds} | every_image
    if scattering and scope == "pooled":
        changes |= _SCATTERING_POOLED
    if shared and scattering:
        changes |= _SCATTERING_SHARED
    if shared and (smoke or not scattering):
        changes["dpsgd_expected_batch"] = _SHARED_BATCHES[profile.name]
    return replace(profile, **changes)


def get_profile(name: str | None) -> Profile:
    """The profile of that name; None picks "paper" where CUDA is at hand, else "quick"."""
    if name is None:
        import torch

        name = "paper" if torch.cuda.is_available() else "quick"
    return PROFILES[check_choice("profile", name, PROFILES)]


def _newton(profile: Profile, epsilon: float, model: str = "random-filters") -> Profile:
    return for_model(profile, model, trainer="shared-newton", epsilon=epsilon)


def profile_table() -> list[dict[str, Any]]:
    """One row per field that differs, one column per profile (for docs/profiles.md)."""
    groups: dict[str, dict[str, Profile]] = {
        "": PROFILES,
        ", of scattering arms": {n: for_model(p, "scattering") for n, p in PROFILES.items()},
        ", of the pooled scattering arm": {
            n: for_model(p, "scattering", "pooled") for n, p in PROFILES.items()
        },
        ", of the scattering arms with shared noise": {
            n: for_model(p, "scattering", trainer="shared-dpsgd") for n, p in PROFILES.items()
        },
        ", of DPResNet with shared noise": {
            n: for_model(p, "dpresnet", trainer="shared-dpsgd") for n, p in PROFILES.items()
        },
        ", of second-order arms": {n: _newton(p, 6.0) for n, p in PROFILES.items()},
    }
    for epsilon in sorted(set(_NEWTON_RATES) - {6.0}):
        name = f", of second-order arms at ε = {epsilon:g}"
        groups[name] = {n: _newton(p, epsilon) for n, p in PROFILES.items()}
    for model, told in (
        (_TURNED, "on averaged features"),
        (_DRAWN, "with settings from drawn images"),
    ):
        for epsilon in sorted(_RATES_OF[model]):
            name = f", of second-order arms {told} at ε = {epsilon:g}"
            groups[name] = {n: _newton(p, epsilon, model) for n, p in PROFILES.items()}
    rows: list[dict[str, Any]] = []
    for one in fields(Profile):
        if one.name in ("name", "arms", "first"):
            continue
        shown: dict[str, Any] = {}
        for group, profiles in groups.items():
            if "second-order" in group and one.name in _NEWTON_IGNORES:
                continue
            values = {name: getattr(p, one.name) for name, p in profiles.items()}
            if values != shown:
                rows.append({"field": one.name + group, **values})
                shown = values
    arms = {name: ", ".join(profile.arms) or "all" for name, profile in PROFILES.items()}
    first = {name: ", ".join(profile.first) or "–" for name, profile in PROFILES.items()}
    return [
        *rows,
        {"field": "arms of a whole campaign", **arms},
        {"field": "of all, run first", **first},
    ]
