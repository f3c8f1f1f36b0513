"""The experiment matrix: an arm = local trainer + update mechanism + aggregator + settings.

Every row of every accuracy table is one of these compositions, and says itself how it is shown;
neither the loop that runs them (``repro.federated.rounds``) nor the report knows an arm by name.
"""

from __future__ import annotations

import difflib
from typing import Any

from repro.errors import InputError
from repro.runs.arm import (
    EPSILONS,
    PLAIN,
    PLAIN_SECURE,
    POOLED_DELTA,
    PRIVATE,
    PRIVATE_CLEAR,
    SHARED,
    STATED,
    Arm,
    Family,
    Place,
    Presentation,
    promised,
)
from repro.runs.second_order_arms import WITH_TWINS, logistic, newton, newton_twin, searched

DPRESNET = Family("the paper's network", sentence="the paper's network")
SCATTERING = Family("scattering, one linear layer", sentence="scattering and a linear layer")
# What several arms or places call the same.
OWN = "honest for a record, each hospital its own noise"
DP_RUN, DP_DOCUMENTED = "“DP+” as most likely run", "“DP+” as documented"
BOUNDS = "no privacy, and the bounds"  # panels of curves
READINGS = "three readings of “DP+ / SecAgg+”"

FEDAVG, FEDAVG_SECURE, SCATTERING_FEDAVG = "fedavg", "fedavg-secagg", "scattering-fedavg"
CLIPPED, DOCUMENTED, HOSPITAL = "clip-secagg", "documented-secagg", "calibrated-secagg"


def _dpsgd(epsilon: float, *, secure: bool) -> Arm:
    names: dict[Place, str] = (
        {"frontier": "each hospital its own noise"} if secure else {"curves": f"ε = {epsilon:g}"}
    )
    if epsilon == STATED and secure:
        names |= {"answer": OWN, "confusion": f"honest {promised(epsilon, 'record')}"}
    if epsilon == STATED and not secure:
        names["recall"] = promised(epsilon, "record")
    configuration = PRIVATE if secure else PRIVATE_CLEAR
    return Arm(
        name=f"dpsgd-eps{epsilon:g}" + ("-secagg" if secure else ""),
        description=f"record-level DP-SGD in every hospital, true total ε = {epsilon:g}"
        + (", secure aggregation" if secure else ""),
        reading="honest",
        presentation=Presentation(
            DPRESNET,
            names,
            panel="record-level DP-SGD, true total ε",
            twin=FEDAVG_SECURE if secure else FEDAVG,
            configuration=configuration if epsilon == STATED else None,
        ),
        trainer="dpsgd",
        aggregator="secure" if secure else "plain",
        epsilon=epsilon,
    )


def _scattering(epsilon: float | None = None, **more: Any) -> Arm:
    """The arm of the same name without ``scattering-``, with the other model."""
    name, description = "fedavg", "FedAvg"
    secure, pooled = more.get("aggregator") == "secure", more.get("scope") == "pooled"
    names: dict[Place, str]
    if epsilon is None:
        shown = "no privacy"
        names = {"answer": shown, "curves": shown, "frontier": shown}
        names["recall"] = "scattering, FedAvg"
    elif secure:
        names = {"answer": OWN}
    elif pooled:
        names = {"frontier": "all images in one place"}
    else:
        names = {"curves": f"ε = {epsilon:g}", "frontier": "each hospital its own noise"}
        if epsilon == STATED:
            names["recall"] = f"scattering, {promised(epsilon, 'record')}"
    if epsilon is not None:
        name = f"dpsgd-eps{epsilon:g}"
        description = f"record-level DP-SGD at true total ε = {epsilon:g}"
    where = "in every hospital"
    if secure:
        name, where = f"{name}-secagg", "in every hospital, secure aggregation"
    if pooled:
        name, where = f"central-{name}", f"on the pooled training images, δ = {more['delta']:g}"
    return Arm(
        name=f"scattering-{name}",
        description=f"scattering and a linear layer for DPResNet: {description} {where}",
        reading="plain" if epsilon is None else "honest",
        presentation=Presentation(
            SCATTERING,
            names,
            panel="scattering, other length",
            twin=None if epsilon is None or pooled else SCATTERING_FEDAVG,
        ),
        trainer="adam" if epsilon is None else "dpsgd",
        epsilon=epsilon,
        model="scattering",
        **more,
    )


def _shared(epsilon: float, model: str = "dpresnet") -> Arm:
    """DP-SGD on all hospitals' records, with noise shared inside the secure sum."""
    scattering = model == "scattering"
    names: dict[Place, str] = {"frontier": "noise shared in the secure sum"}
    if epsilon == STATED:
        names["answer"] = SHARED
    if scattering:
        names["curves"] = f"ε = {epsilon:g}"
    else:
        names |= {"overnight": SHARED, "paper": f"honest ε = {epsilon:g}, noise shared"}
        names["front"] = "the paper's network, with noise that is added"
    return Arm(
        name=f"scattering-shared-eps{epsilon:g}" if scattering else f"shared-dpsgd-eps{epsilon:g}",
        description=("scattering and a linear layer for DPResNet: " if scattering else "")
        + f"record-level DP-SGD with noise shared inside the secure sum, true total ε = {epsilon:g}"
        + f", δ = {POOLED_DELTA:g}",
        reading="honest",
        presentation=Presentation(
            SCATTERING if scattering else DPRESNET,
            names,
            panel="scattering, noise shared" if scattering else None,
            twin=SCATTERING_FEDAVG if scattering else FEDAVG_SECURE,
        ),
        trainer="shared-dpsgd",
        aggregator="secure",
        epsilon=epsilon,
        delta=POOLED_DELTA,
        model=model,
    )


def _unprotected(names: dict[Place, str], configuration: str | None = None) -> Presentation:
    return Presentation(DPRESNET, names, BOUNDS, configuration=configuration)


def _reading(names: dict[Place, str]) -> Presentation:
    return Presentation(DPRESNET, names, READINGS, FEDAVG_SECURE, PRIVATE)


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(
            FEDAVG,
            "FedAvg as the authors run it: no privacy, no secure aggregation",
            "plain",
            _unprotected(
                {
                    "front": "the paper's network, no privacy",
                    "curves": "FedAvg",
                    "confusion": "FedAvg",
                    "recall": "the paper's network, FedAvg",
                    "overnight": "FedAvg, no privacy",
                    "paper": "FedAvg",
                    "sentence": "training without any protection",
                },
                PLAIN,
            ),
        ),
        Arm(
            FEDAVG_SECURE,
            "FedAvg with secure aggregation: differs from fedavg by quantisation only",
            "plain",
            _unprotected(
                {
                    "answer": "no privacy: FedAvg + SecAgg",
                    "curves": "FedAvg + SecAgg",
                    "frontier": "no privacy",
                    "overnight": "FedAvg + SecAgg",
                    "paper": "FedAvg + SecAgg",
                    "sentence": "training with secure aggregation alone",
                },
                PLAIN_SECURE,
            ),
            aggregator="secure",
        ),
        Arm(
            CLIPPED,
            "updates clipped at 7, no noise, secure aggregation: what “DP+” most likely was",
            "as most likely run",
            _reading(
                {
                    "front": f"{DP_RUN}: clipping, no noise",
                    "answer": f"{DP_RUN}: clipping, no noise",
                    "curves": "clip, no noise",
                    "frontier": f"{DP_RUN} (clip only)",
                    "confusion": "“DP+”, as most likely run",
                    "recall": "clip, no noise",
                    "overnight": DP_RUN,
                    "paper": DP_RUN,
                    "sentence": f"training with {DP_RUN}",
                }
            ),
            mechanism="clip",
            aggregator="secure",
        ),
        Arm(
            DOCUMENTED,
            "the same with σ = 0.699 added to every parameter: what the documentation says",
            "as documented",
            _reading(
                {
                    "answer": f"{DP_DOCUMENTED}: its noise added",
                    "curves": "documented noise",
                    "frontier": f"{DP_DOCUMENTED} (ε of a hospital)",
                    "confusion": "“DP+”, as documented",
                    "overnight": DP_DOCUMENTED,
                }
            ),
            mechanism="clip_noise",
            aggregator="secure",
            noise="documented",
        ),
        Arm(
            HOSPITAL,
            "the same with noise calibrated to a true total ε = 6 for a hospital",
            "honest",
            _reading(
                {
                    "answer": "honest for a whole hospital",
                    "curves": promised(STATED, "hospital"),
                    "frontier": f"noise for {promised(STATED, 'hospital')}",
                }
            ),
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
            _unprotected({"bounds": "all images in one place (bound)", "curves": "pooled data"}),
            scope="pooled",
        ),
        Arm(
            "single",
            "one hospital trains alone (hospital = seed mod K): the lower bound",
            "bound",
            _unprotected({"bounds": "one hospital alone (bound)", "curves": "one hospital"}),
            scope="single",
        ),
        _scattering(),
        *(_scattering(epsilon) for epsilon in EPSILONS),
        _scattering(STATED, aggregator="secure"),
        _scattering(STATED, scope="pooled", delta=POOLED_DELTA),
        *(_shared(epsilon, "scattering") for epsilon in EPSILONS),
        _shared(STATED),
        newton(STATED, "scattering"),
        *(newton(epsilon, "random") for epsilon in EPSILONS),
        *(newton(epsilon, "turned") for epsilon in EPSILONS),
        *(newton_twin(features, every) for features, every in WITH_TWINS),
        logistic("turned"),
        *(newton(epsilon, "turned", every=True) for epsilon in EPSILONS),
        *(newton(epsilon, "drawn") for epsilon in EPSILONS),
        searched(STATED),
        *(newton(epsilon, "public") for epsilon in EPSILONS),
    )
}

# Those that sentences are about, beside the ones named above.
RECORD_CLEAR, RECORD = (_dpsgd(STATED, secure=secure).name for secure in (False, True))
RECORD_SHARED = _shared(STATED).name
POOLED = _scattering(STATED, scope="pooled", delta=POOLED_DELTA).name


def get_arm(name: str) -> Arm:
    if name not in ARMS:
        near = difflib.get_close_matches(name, ARMS, n=3)
        meant = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise InputError("arm", name, f"one that `repro arms` lists{meant}")
    return ARMS[name]
