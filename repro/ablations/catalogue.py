"""The ablations that are data alone: what varies, over which values; words: catalogue.toml."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from repro.ablations.base import Variant, Variants, base, change
from repro.runs.arm import EPSILONS
from repro.runs.profiles import SCATTERING_EPOCHS, Profile
from repro.runs.settings import PartitionSettings, Robustness, RunSettings

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

VARIANTS: dict[str, Variants] = {
    "normalisation": together(
        vary("model", "normalisation", ("group", "batch", "layer", "none"), PLAIN),
        vary("model", "normalisation", ("group", "layer", "none"), PRIVATE),
    ),
    "downsampling": vary("model", "downsampling", ("stride", "pool"), PLAIN, PRIVATE),
    "skips": vary("model", "skips", ("none", "first", "all"), PLAIN, PRIVATE),
    "clip-norm": together(
        vary("record_privacy", "clip_norm", _NORMS, PRIVATE),
        vary("update_privacy", "clip_norm", _NORMS, "clip-secagg"),  # “DP+” as it was run
    ),
    "epsilon": _epsilons,
    "local-epochs": _local_epochs,
    "training-length": _long_and_short,
    "batch-size": together(
        vary("local", "batch_size", _BATCHES, PLAIN),
        vary("record_privacy", "expected_batch", _BATCHES, PRIVATE),
    ),
    "hospitals": _hospitals,
    "partition": _partitions,
    "shares": _shares,
    "levels": _levels,
    "hostile": _lies,
    "clipping": vary("record_privacy", "clipping", ("flat", "per_layer", "automatic"), PRIVATE),
    "engine": vary("record_privacy", "engine", ("bookkeeping", "vmap"), PRIVATE),
}
SERIES: dict[str, Callable[[RunSettings], str]] = {
    "epsilon": lambda run: "record-level DP-SGD" if run.record_privacy else run.arm,
    "features": lambda run: "second-order steps, ε = 6",
}
