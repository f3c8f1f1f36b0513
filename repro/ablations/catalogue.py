"""The ablations that are data alone: what varies, over which values, what to expect of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from repro.ablations.base import Ablation, Variant, base, change
from repro.formatting import small
from repro.runs.arm import EPSILONS
from repro.runs.profiles import SCATTERING_EPOCHS, Profile
from repro.runs.settings import PartitionSettings, RecordPrivacy, Robustness, RunSettings

Variants = Callable[[Profile, int], list[Variant]]
PLAIN, PRIVATE = "fedavg", "dpsgd-eps6"
LONG = f"{SCATTERING_EPOCHS} local epochs"  # `repro.report.honest` quotes these rows


def vary(part: str, field: str, values: Sequence[Any], *arms: str) -> Variants:
    """Each of the arms with each of the values in ``field`` of its ``part``."""

    def named(value: Any) -> str:
        return value.replace("_", " ") if isinstance(value, str) else f"{value:g}"

    return lambda profile, hospitals: [
        (named(value), change(base(arm, profile, hospitals), part, **{field: value}))
        for arm in arms
        for value in values
    ]


def together(*groups: Variants) -> Variants:
    return lambda profile, hospitals: [one for group in groups for one in group(profile, hospitals)]


def _epsilons(profile: Profile, hospitals: int) -> list[Variant]:
    smallest = base("dpsgd-eps1", profile, hospitals)
    largest = base("dpsgd-eps8", profile, hospitals)
    return [
        ("0.5", change(smallest, "record_privacy", epsilon=0.5)),
        *((f"{e:g}", base(f"dpsgd-eps{e:g}", profile, hospitals)) for e in EPSILONS),
        ("16", change(largest, "record_privacy", epsilon=16.0)),
        ("no guarantee", base(PLAIN, profile, hospitals)),
    ]


def _by_guarantee(settings: RunSettings) -> str:
    return "record-level DP-SGD" if settings.record_privacy else settings.arm


def _local_epochs(profile: Profile, hospitals: int) -> list[Variant]:
    found = []
    for arm in (PLAIN, PRIVATE):
        own = base(arm, profile, hospitals)
        for factor in (0.5, 1, 2, 4):
            # The label is the same for all arms; an arm's own number of epochs need not be.
            epochs = own.local.epochs if factor == 1 else factor * own.local.epochs
            found.append((f"× {factor:g}", change(own, "local", epochs=epochs)))
    return found


def _long_and_short(profile: Profile, hospitals: int) -> list[Variant]:
    found = []
    for arm in (PLAIN, "clip-secagg", PRIVATE, "dpsgd-eps1"):
        own = base(arm, profile, hospitals)
        longer = change(own, "local", epochs=SCATTERING_EPOCHS / own.rounds)
        found += [("the profile's own", own), (LONG, longer)]
    return found


def _hospitals(profile: Profile, hospitals: int) -> list[Variant]:
    del hospitals  # it is what this ablation varies
    return [(str(n), base(arm, profile, n)) for arm in (PLAIN, PRIVATE) for n in (5, 10, 20, 40)]


def _partitions(profile: Profile, hospitals: int) -> list[Variant]:
    partitions = {
        "authors'": PartitionSettings(),
        "IID": PartitionSettings(scheme="iid"),
        "Dirichlet 0.5": PartitionSettings(scheme="dirichlet", alpha=0.5),
        "Dirichlet 0.1": PartitionSettings(scheme="dirichlet", alpha=0.1),
        "Zipf 1": PartitionSettings(scheme="zipf", exponent=1.0),
    }
    return [
        (label, change(base(arm, profile, hospitals), "partition",
                       scheme=one.scheme, alpha=one.alpha, exponent=one.exponent))
        for arm in (PLAIN, PRIVATE)
        for label, one in partitions.items()
    ]  # fmt: skip


def _shares(profile: Profile, hospitals: int) -> list[Variant]:
    """All survive for certain: with fewer shares a round may fail, which ends the run."""
    hospitals = max(hospitals, 10)  # with fewer, four losses may leave no majority
    own = base("fedavg-secagg", profile, hospitals)
    # (neighbours, threshold): the paper's graph [code], the same with one share fewer needed, and
    # all the others with a majority; and how many hospitals are lost in every round.
    graphs = {(4, 4): (0, 1), (4, 3): (2,), (hospitals - 1, hospitals // 2 + 1): (0, 2, 4)}
    return [
        (
            f"{neighbours + 1} shares, {threshold} needed\n{lost} of {hospitals} lost",
            change(own, "secagg", neighbours=neighbours, threshold=threshold,
                   drop_rate=lost / hospitals),
        )
        for (neighbours, threshold), losses in graphs.items()
        for lost in losses
    ]  # fmt: skip


def _levels(profile: Profile, hospitals: int) -> list[Variant]:
    own = base("fedavg-secagg", profile, hospitals)
    levels = (2**22, 2**16, 2**12, 2**10, 2**8)  # 2^22 is Flower's default [flwr]
    return [
        ("none", base(PLAIN, profile, hospitals)),
        ("all the field has", own),
        *((f"{n:,}", change(own, "secagg", levels=n)) for n in levels),
    ]


def _lies(profile: Profile, hospitals: int) -> list[Variant]:
    own = base("clip-secagg", profile, hospitals)
    cases: dict[str, Robustness | None] = {
        "all honest": None,
        "all honest, alarm, pairs": Robustness(alarm=True, group=2),
        "largest lie": Robustness(1, "largest"),
        "largest lie, alarm": Robustness(1, "largest", alarm=True),
        "largest lie, alarm, pairs": Robustness(1, "largest", alarm=True, group=2),
        "reversed": Robustness(1, "reversed"),
        "reversed, alarm": Robustness(1, "reversed", alarm=True),
        "reversed, alarm, fives": Robustness(1, "reversed", alarm=True, group=5),
        "reversed, alarm, pairs": Robustness(1, "reversed", alarm=True, group=2),
    }
    # A bound says something where it is near what honest updates need: the clip norm is several
    # times as long. What it costs by itself stands in the first of these rows.
    bounded = {
        "all honest": Robustness(norm=_NEAR),
        "largest lie": Robustness(1, "largest", norm=_NEAR),
        "reversed": Robustness(1, "reversed", norm=_NEAR),
        "within the bound": Robustness(1, "within", norm=_NEAR),
    }
    cases |= {f"{label}, norms ≤ {_NEAR:g} proved": case for label, case in bounded.items()}
    return [(label, replace(own, robustness=case)) for label, case in cases.items()]


_NEAR = 0.5  # what is proved in ``hostile``: about what honest updates are long
_NORMS = (0.1, 0.5, 1.0, 3.0, 7.0)
_BATCHES = (8, 16, 32, 64, 128)

CATALOGUE = (
    Ablation(
        name="normalisation",
        question="What does DPResNet owe to GroupNorm?",
        axis="normalisation",
        variants=together(
            vary("model", "normalisation", ("group", "batch", "layer", "none"), PLAIN),
            vary("model", "normalisation", ("group", "layer", "none"), PRIVATE),
        ),
        expected="batch normalisation best without privacy and impossible with it (it mixes the "
        "records of a batch, so no record's gradient exists); group and layer normalisation close "
        "to each other; none behind, most of all under DP-SGD.",
        columns=("parameters", "training_seconds", "epsilon"),
        ordered=False,
    ),
    Ablation(
        name="downsampling",
        question="Does it matter that DPResNet strides where ResNet-9 pools?",
        axis="downsampling",
        variants=vary("model", "downsampling", ("stride", "pool"), PLAIN, PRIVATE),
        expected="pooling a little more accurate and slower, since the convolution before it works "
        "at full resolution.",
        columns=("parameters", "training_seconds", "epsilon"),
        ordered=False,
    ),
    Ablation(
        name="skips",
        question="Was one skip enough, where a ResNet has one round every block?",
        axis="skips",
        variants=vary("model", "skips", ("none", "first", "all"), PLAIN, PRIVATE),
        expected="little difference, the network being shallow enough to train without any; the "
        "skips' own 1×1 convolutions add parameters, hence noise under DP-SGD.",
        columns=("parameters", "training_seconds", "epsilon"),
        ordered=False,
    ),
    Ablation(
        name="clip-norm",
        question="How does accuracy depend on the clip norm, of gradients and of updates?",
        axis="clip norm (L2)",
        variants=together(
            vary("record_privacy", "clip_norm", _NORMS, PRIVATE),
            vary("update_privacy", "clip_norm", _NORMS, "clip-secagg"),  # “DP+” as it was run
        ),
        expected="DP-SGD flat round the chosen clip norm and worse far above it, since noise grows "
        "with the norm and gradients don't; clipping updates costs accuracy only well below their "
        "usual length.",
        columns=("gradients_clipped", "updates_clipped", "epsilon"),
    ),
    Ablation(
        name="epsilon",
        question="What accuracy does a total ε for a record buy?",
        axis=f"ε (total, δ = {small(RecordPrivacy.delta)})",
        variants=_epsilons,
        cost="7 runs a seed, 5 of them the matrix' own; minutes on 2 cores in ``quick``, a CUDA "
        "device for ``paper``.",
        expected="accuracy rises with ε and stays below FedAvg without privacy.",
        columns=("gradients_clipped", "epsilon"),
        series=_by_guarantee,
    ),
    Ablation(
        name="local-epochs",
        question="Do more local epochs a round help, at the same number of rounds and the same ε?",
        axis="local epochs, as multiples of the profile's",
        variants=_local_epochs,
        cost="8 runs a seed, of half to four times the matrix' length; minutes on 2 cores in "
        "``quick``, a CUDA device for ``paper``.",
        expected="more epochs help FedAvg while rounds are few; under DP-SGD each epoch also costs "
        "noise, since ε is the total, so that the gain is smaller.",
        columns=("training_seconds", "epsilon"),
    ),
    Ablation(
        name="training-length",
        question="How much of what DPResNet's arms lack is training, and how much is privacy?",
        axis="local training in all rounds together",
        variants=_long_and_short,
        cost="4 long runs a seed beside the matrix' own; about 20 minutes on 2 cores in ``quick``, "
        "less than the matrix in ``paper``, whose own training is longer than this.",
        expected="FedAvg gains most, and clipping still costs nothing; DP-SGD at ε = 6 leaves the "
        "majority class and stays far behind FedAvg, ε = 1 further still.",
        columns=("epsilon",),
        ordered=False,  # two settings, no scale between them
    ),
    Ablation(
        name="batch-size",
        question="Which batch size suits ordinary training, and which DP-SGD?",
        axis="images a batch (expected, with DP-SGD)",
        variants=together(
            vary("local", "batch_size", _BATCHES, PLAIN),
            vary("record_privacy", "expected_batch", _BATCHES, PRIVATE),
        ),
        expected="FedAvg falls with the batch, which takes fewer steps at the same learning rate; "
        "DP-SGD has an optimum, since larger batches drown the noise and smaller ones take more "
        "steps.",
        columns=("training_seconds", "epsilon"),
    ),
    Ablation(
        name="hospitals",
        question="What does it cost to spread the same images over more hospitals?",
        axis="hospitals",
        variants=_hospitals,
        cost="8 runs a seed; minutes on 2 cores in ``quick``, a CUDA device for ``paper``; "
        "``--hospitals`` changes nothing.",
        expected="accuracy falls with the number of hospitals, faster under DP-SGD, where each "
        "adds its own noise and has fewer images to hide one among.",
        columns=("training_seconds", "epsilon"),
    ),
    Ablation(
        name="partition",
        question="How much does it matter how the images are divided among the hospitals?",
        axis="partition",
        variants=_partitions,
        expected="the authors' partition is as good as IID (it differs in sizes only); label skew "
        "costs accuracy, more at Dirichlet's α = 0.1 than at 0.5; Zipf sizes cost little without "
        "privacy and more with it, where a small hospital needs more noise.",
        columns=("training_seconds", "epsilon"),
        ordered=False,
    ),
    Ablation(
        name="shares",
        question="What do shares, threshold and drop-outs cost in accuracy, bytes and time?",
        axis="shares, threshold, drop-outs",
        variants=_shares,
        expected="as many drop-outs as shares minus threshold are always survived, and then the "
        "mean of the others is exact, so that accuracy falls no more than their images' absence "
        "explains; more neighbours cost bytes and time, not accuracy. Every variant here is chosen "
        "to survive for certain: with fewer shares a round may fail, which ends the run.",
        columns=("tolerance", "survivors", "traffic", "aggregation_seconds", "error_bound"),
        ordered=False,
    ),
    Ablation(
        name="levels",
        question="How coarsely may updates be quantised before accuracy suffers?",
        axis="quantisation levels over ±8",
        variants=_levels,
        expected="no difference down to about a thousand levels over ±8; below, the unbiased "
        "rounding noise becomes as large as the updates and accuracy falls.",
        columns=("error_bound", "traffic"),
        ordered=False,
    ),
    Ablation(
        name="hostile",
        question="What does one lying hospital do to a secure sum, and what helps?",
        axis="one hospital's lie, and sums of how many",
        variants=_lies,
        expected="either lie undoes training where all are in one sum; the alarm on a sum's length "
        "then stops training instead, against the largest lie, and does not notice the reversed "
        "one; in sums of two hospitals the largest lie costs one pair, the reversed one a part of "
        "every step. The smaller the sums, the more the server learns of each hospital. Where "
        "norms are proved, either lie is left out by name, and a lie within the bound weighs no "
        "more than one honest update.",
        columns=("left_out", "updates_clipped", "traffic"),
        ordered=False,
    ),
    Ablation(
        name="clipping",
        question="Which way of clipping a record's gradient suits DP-SGD?",
        axis="clipping",
        variants=vary("record_privacy", "clipping", ("flat", "per_layer", "automatic"), PRIVATE),
        expected="flat and automatic close where nearly every gradient is clipped; per layer "
        "behind, since it cuts each layer to the same length.",
        columns=("gradients_clipped", "training_seconds", "epsilon"),
        ordered=False,
    ),
)
