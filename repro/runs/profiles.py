"""Profiles: how much of the paper's setting a run takes on.

``smoke`` proves the plumbing, ``quick`` draws every table and figure on a laptop, ``overnight``
trains a narrower network for a real length on a CPU, ``paper`` is the setting of arXiv
2412.00687. What a profile changes is exactly the fields below; docs/profiles.md prints them as one
table. Private and other arms of a profile always train equally long.

DP-SGD's settings were chosen on validation images; docs/settings-search.md lists every trial.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from repro.errors import InputError


@dataclass(frozen=True)
class Profile:
    """The differences between profiles, and nothing else."""

    name: str
    summary: str
    width: int  # channels of DPResNet's first convolution
    rounds: int
    local_epochs: int | float  # a round; a fraction takes that part of the images
    batch_size: int  # images of an ordinary local step
    seeds: tuple[int, ...]
    hospitals: tuple[int, ...]
    train_stride: int  # every n-th training image
    test_stride: int  # every n-th test image
    threads: int  # of one run; 0: all. With 1, `repro reproduce` runs one run per core
    dpsgd_expected_batch: int  # images a Poisson step draws on average
    dpsgd_learning_rate: float
    dpsgd_optimizer: str
    dpsgd_momentum: float  # of "sgd", anew each round
    dpsgd_clip_norm: float  # L2, of one image's gradient
    protocol_every: int  # with shared noise: every n-th sum runs the whole protocol; same bits
    synthetic_by_default: bool  # may "auto" data fall back to the synthetic stand-in?
    # Of training; "auto": bf16-mixed for arms without noise where the machine is fast in it.
    precision: str = "float32"
    arms: tuple[str, ...] = ()  # the arms of a whole campaign, most telling first; (): all
    first: tuple[str, ...] = ()  # of all arms, those that are run before the others


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="smoke",
            summary="minutes on 2 cores: proves that everything runs, no number means anything",
            width=4,
            rounds=2,
            local_epochs=1,
            batch_size=8,
            seeds=(0,),
            hospitals=(10, 20),
            train_stride=16,
            test_stride=16,
            threads=1,
            dpsgd_expected_batch=16,
            dpsgd_learning_rate=2e-3,
            dpsgd_optimizer="adam",
            dpsgd_momentum=0.0,
            dpsgd_clip_norm=1.0,
            protocol_every=1,
            synthetic_by_default=True,
        ),
        Profile(
            name="quick",
            summary="every table and figure in under an hour on 2 cores: shapes, not levels",
            width=4,
            rounds=10,
            local_epochs=0.125,
            batch_size=8,
            seeds=(0, 1, 2),
            hospitals=(10, 20),
            train_stride=1,
            test_stride=6,
            threads=1,
            dpsgd_expected_batch=32,
            dpsgd_learning_rate=5e-3,
            dpsgd_optimizer="adam",
            dpsgd_momentum=0.0,
            dpsgd_clip_norm=1.0,
            protocol_every=10,
            synthetic_by_default=True,
        ),
        Profile(
            name="overnight",
            summary="a night on a CPU: an eighth of the width, the paper's 150 epochs, all images",
            width=8,
            rounds=150,
            local_epochs=1,
            batch_size=16,
            seeds=(0, 1, 2),
            hospitals=(10, 20),
            train_stride=1,
            test_stride=1,
            threads=1,
            dpsgd_expected_batch=128,
            dpsgd_learning_rate=2e-3,
            dpsgd_optimizer="adam",
            dpsgd_momentum=0.0,
            dpsgd_clip_norm=1.0,
            protocol_every=1,
            synthetic_by_default=False,
            # The paper's network alone; DP-SGD's other arms would take a week.
            arms=(
                "fedavg",
                "shared-dpsgd-eps6",
                "documented-secagg",
                "clip-secagg",
                "fedavg-secagg",
            ),
        ),
        Profile(
            name="paper",
            summary="the paper's setting: full width, all images, 50 rounds of 3 local epochs",
            width=64,
            rounds=50,
            local_epochs=3,
            batch_size=32,
            seeds=(0, 1, 2),
            hospitals=(10, 20),
            train_stride=1,
            test_stride=1,
            threads=0,
            dpsgd_expected_batch=128,
            dpsgd_learning_rate=1e-3,
            dpsgd_optimizer="adam",
            dpsgd_momentum=0.0,
            dpsgd_clip_norm=1.0,
            protocol_every=1,
            synthetic_by_default=False,
            precision="auto",
            # A campaign that is cut short has answered the paper's own question first.
            first=(
                "fedavg",
                "shared-dpsgd-eps6",
                "fedavg-secagg",
                "clip-secagg",
                "documented-secagg",
                "dpsgd-eps6-secagg",
            ),
        ),
    )
}


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
_DPRESNET_SHARED: dict[str, Any] = {"dpsgd_expected_batch": 256}
_SMOKE_SHARED: dict[str, Any] = {"dpsgd_expected_batch": 48}
_OVERNIGHT_SHARED: dict[str, Any] = {"dpsgd_expected_batch": 1024}  # a guess: 9 steps an epoch
# A guess too: the more records in a sum, the fewer sums of 4.9 million numbers, 5 an epoch here.
_PAPER_SHARED: dict[str, Any] = {"dpsgd_expected_batch": 2048}
# Second-order training: the mean, the second moments, twelve steps on all records, each a round.
# Chosen on validation images: docs/feature-search.md. A gradient's mean is some thousandth of one
# record's (576 or 1,024 features of equal weight), hence the rates.
_NEWTON: dict[str, Any] = {
    "rounds": 14,
    "local_epochs": 1,
    "test_stride": 1,
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
_LOGISTIC: dict[str, Any] = {"rounds": 1, "local_epochs": 1, "test_stride": 1}
_NEWTON_SMOKE: dict[str, Any] = {"rounds": 4, "test_stride": 16}
_SEARCH_SMOKE: dict[str, Any] = {"test_stride": 16}
_NEWTON_IGNORES = ("width", "batch_size", "dpsgd_expected_batch", "protocol_every")


def for_model(
    profile: Profile,
    model: str,
    scope: str = "federated",
    trainer: str = "adam",
    epsilon: float | None = None,
) -> Profile:
    """``profile`` as arms with ``model``, ``scope``, ``trainer`` and ``epsilon`` take it."""
    if trainer == "logistic":
        stride = 16 if profile.name == "smoke" else 1
        return replace(profile, **_LOGISTIC | {"test_stride": stride})
    if trainer == "searched-newton":  # clip norm and rate are each trial's own
        return replace(
            profile, **_NEWTON | {"rounds": 1} | (_SEARCH_SMOKE if profile.name == "smoke" else {})
        )
    if trainer in ("shared-newton", "newton"):  # the twin without privacy: at the rates of ε = 6
        rates = _RATES_OF.get(model, _NEWTON_RATES)
        rate = rates.get(epsilon or 0.0, rates[6.0])
        changes = _NEWTON | {"dpsgd_learning_rate": rate}
        if model == _DRAWN:
            changes["dpsgd_clip_norm"] = _DRAWN_CLIP_NORM
        return replace(profile, **changes | (_NEWTON_SMOKE if profile.name == "smoke" else {}))
    scattering, shared = model == "scattering", trainer == "shared-dpsgd"
    changes = dict(_SCATTERING) if scattering else {}
    if scattering and profile.name != "smoke":
        epochs = SCATTERING_EPOCHS / profile.rounds
        changes |= {"local_epochs": epochs, "test_stride": 1}
    if scattering and scope == "pooled":
        changes |= _SCATTERING_POOLED
    if shared:
        changes |= _SCATTERING_SHARED if scattering else _DPRESNET_SHARED
    if shared and profile.name == "smoke":
        changes |= _SMOKE_SHARED
    if shared and not scattering and profile.name == "overnight":
        changes |= _OVERNIGHT_SHARED
    if shared and not scattering and profile.name == "paper":
        changes |= _PAPER_SHARED
    return replace(profile, **changes)


def get_profile(name: str | None) -> Profile:
    """The profile of that name; None picks "paper" where CUDA is at hand, else "quick"."""
    if name is None:
        import torch

        name = "paper" if torch.cuda.is_available() else "quick"
    if name not in PROFILES:
        raise InputError("profile", name, "one of " + ", ".join(PROFILES))
    return PROFILES[name]


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
