"""Privacy events: what a mechanism did to the data, apart from any way of accounting for it.

An event says how often and how strongly the data was touched, for which *unit* (one record, or
one hospital's whole update) and under which *neighbouring relations* a proof covers it. It
computes no ε: that is an accountant's work, and an accountant refuses what has no proof.

Noise multipliers are relative to the **clip norm**, the largest norm one unit can contribute:
noise standard deviation ÷ clip norm. Adding or removing a unit moves a clipped sum by at most
one clip norm, replacing one by at most two, so ``sensitivity(relation)`` is 1 or 2 clip norms,
and it is always asked of the event, never assumed.

Under zero_out a unit is replaced by a null one that contributes nothing. The number of units is
then the same on both sides, so it may be public (and with it FedAvg's weights, the sample rate
and the expected batch size), which add_remove, taken literally, does not allow. A null unit that
is drawn adds 0 to the clipped sum, exactly as one that is not there: the pair of distributions,
hence every ε, is that of add_remove, with and without Poisson sampling. For batches of a fixed
size it is not (a null unit takes another's place in the batch), so those stay unproved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from repro.accounting import checks
from repro.accounting.checks import (
    ADD_REMOVE,
    RECORD,
    RELATIONS,
    REPLACE_ONE,
    ZERO_OUT,
    Number,
)
from repro.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PrivacyEvent:
    """One access to the data. ``unit``: whom the event protects, "record" or "hospital"."""

    unit: str = RECORD

    #: The neighbouring relations the event's privacy is proved for.
    proved: ClassVar[tuple[checks.Relation, ...]] = RELATIONS
    #: Why no relation, or only one, is proved; shown when an accountant refuses.
    reason: ClassVar[str] = ""

    def __post_init__(self) -> None:
        checks.one_of("unit", self.unit, checks.UNITS)

    def proved_for(self) -> tuple[checks.Relation, ...]:
        """``proved``, where it does not depend on the event's numbers."""
        return self.proved

    def sensitivity(self, relation: str) -> float:
        """L2 (Laplace: L1) sensitivity under ``relation``, in clip norms: 1 or 2."""
        return 2.0 if checks.relation(relation) == REPLACE_ONE else 1.0

    def scaled(self, factor: Number) -> PrivacyEvent:
        """The same event with ``factor`` > 0 times its noise: as one sees it who knows a part.

        An event without noise stays as it is.
        """
        checks.positive("factor", factor)
        return self

    def leaves(self) -> Iterator[tuple[PrivacyEvent, int]]:
        """The elementary events inside, each with how often it happened."""
        yield self, 1

    def as_dict(self) -> dict[str, Any]:
        """JSON-able and exact: ``event_from_dict`` gives the equal event back."""
        own = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"type": type(self).__name__, **own}


def _plain(value: Any) -> Any:
    if isinstance(value, PrivacyEvent):
        return value.as_dict()
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class NonPrivateEvent(PrivacyEvent):
    """The data was used without any noise: ε = ∞."""


@dataclass(frozen=True)
class _NoiseEvent(PrivacyEvent):
    noise_multiplier: Number

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "noise_multiplier", checks.noise_multiplier(self.noise_multiplier))

    def scaled(self, factor: Number) -> PrivacyEvent:
        factor = checks.positive("factor", factor)
        noise = float(self.noise_multiplier) * factor
        return self if factor == 1 else replace(self, noise_multiplier=noise)

    def effective_multiplier(self, relation: str) -> float:
        """Noise standard deviation ÷ sensitivity under ``relation``."""
        return float(self.noise_multiplier) / self.sensitivity(relation)


@dataclass(frozen=True)
class GaussianEvent(_NoiseEvent):
    """One Gaussian release on all the data: clipped sum + N(0, (noise_multiplier·clip norm)²)."""


@dataclass(frozen=True)
class DiscreteGaussianEvent(_NoiseEvent):
    """One release of integers with discrete Gaussian noise N_Z(0, σ²), σ = multiplier × clip norm.

    The query must be integer-valued. A *sum* of discrete Gaussians is not a discrete Gaussian, so
    this event does not cover noise added by several parties. Nor is one needed: from 256 grid steps
    a share on, a sum is a continuous Gaussian's post-processing to below 1e-12 of ε, and accounted
    for as that (``repro.federated.shared.NoisePlan``, after Kairouz, Liu, Steinke 2021).
    """


@dataclass(frozen=True)
class LaplaceEvent(_NoiseEvent):
    """One Laplace release: L1-clipped sum + Laplace(scale = noise_multiplier × L1 clip norm)."""


@dataclass(frozen=True)
class _SampledEvent(_NoiseEvent):
    sample_rate: Number

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sample_rate", checks.sample_rate(self.sample_rate))


@dataclass(frozen=True)
class PoissonSampledGaussianEvent(_SampledEvent):
    """One DP-SGD step: every unit joins independently with a public ``sample_rate``.

    Proved under add/remove (Mironov, Talwar, Zhang 2019, Theorem 4) and, by the same pair, under
    zero-out. Under replace-one no tight pair of distributions is known to dominate; only at rate
    1, where there is no sampling, all relations are proved.
    """

    reason: ClassVar[str] = (
        "Poisson sampling is accounted for under add_remove and zero_out (for replace_one draw "
        "fixed-size batches without replacement)"
    )

    def proved_for(self) -> tuple[checks.Relation, ...]:
        return RELATIONS if self.sample_rate == 1 else (ADD_REMOVE, ZERO_OUT)


@dataclass(frozen=True)
class FixedBatchGaussianEvent(_SampledEvent):
    """One step on a uniformly random subset of fixed size, drawn without replacement.

    sample_rate: batch size ÷ number of units, both public. Proved under replace-one only
    (Wang, Balle, Kasiviswanathan 2019, Theorem 9): under add/remove the batch size would have
    to change with the neighbour.
    """

    proved = (REPLACE_ONE,)
    reason: ClassVar[str] = (
        "fixed-size batches drawn without replacement are accounted for under replace_one "
        "(for add_remove use Poisson sampling)"
    )


@dataclass(frozen=True)
class ShuffledBatchesEvent(_NoiseEvent):
    """A pass over shuffled data in fixed batches, what most data loaders do. Never accounted for.

    Its privacy can be far worse than Poisson sampling's at the same batch size (Chua et al.
    2024, "How private are DP-SGD implementations?").
    """

    batch_size: int

    proved = ()
    reason: ClassVar[str] = "shuffled batches get no amplification here; use Poisson sampling"

    def __post_init__(self) -> None:
        super().__post_init__()
        size = checks.count("batch_size", self.batch_size, least=1)
        object.__setattr__(self, "batch_size", size)


@dataclass(frozen=True)
class DataDependentRateEvent(_NoiseEvent):
    """Sampling whose rate was computed from the private data. Never accounted for."""

    proved = ()
    reason: ClassVar[str] = (
        "a sample rate computed from private data is itself a release; fix the rate in advance"
    )


@dataclass(frozen=True)
class ComposedEvent(PrivacyEvent):
    """Several events on the same data, one after another (each may depend on earlier outputs)."""

    events: Sequence[PrivacyEvent]

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "events", tuple(self.events))

    def leaves(self) -> Iterator[tuple[PrivacyEvent, int]]:
        for event in self.events:
            yield from event.leaves()

    def scaled(self, factor: Number) -> PrivacyEvent:
        return replace(self, events=tuple(event.scaled(factor) for event in self.events))


@dataclass(frozen=True)
class RepeatedEvent(PrivacyEvent):
    """The same event ``count`` times."""

    event: PrivacyEvent
    count: Number

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "count", checks.count("count", self.count))

    def leaves(self) -> Iterator[tuple[PrivacyEvent, int]]:
        for event, times in self.event.leaves():
            yield event, times * int(self.count)

    def scaled(self, factor: Number) -> PrivacyEvent:
        return replace(self, event=self.event.scaled(factor))


@dataclass(frozen=True)
class BestOfTrialsEvent(PrivacyEvent):
    """The best of N trials, each of which spends ``trial``; all else of them stays secret, N too.

    N ~ D(``eta``, γ) with mean ``trials`` > 1, drawn before any trial: Papernot & Steinke 2022,
    Theorem 2 (``repro.accounting.random_stopping``). eta: None where the number was fixed
    beforehand or stopped when somebody was content. That is never accounted for.
    """

    trial: PrivacyEvent
    trials: Number
    eta: Number | None

    reason: ClassVar[str] = (
        "the best of several trials is accounted for where their number was drawn at random "
        "from D(eta, γ); of a fixed number compose all of them"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.trials(self.trials)
        if self.eta is not None:
            checks.real("eta", self.eta, lambda x: x > -1, "a number above −1, or None")
        for leaf, _ in self.trial.leaves():
            if leaf.unit != self.unit:
                raise InputError("trial", leaf, f"an event of unit {self.unit}")

    def proved_for(self) -> tuple[checks.Relation, ...]:
        if self.eta is None:
            return ()
        return common_relations([self.trial])

    def scaled(self, factor: Number) -> PrivacyEvent:
        return replace(self, trial=self.trial.scaled(factor))


def common_relations(events: Iterable[PrivacyEvent]) -> tuple[checks.Relation, ...]:
    """The relations every one of ``events`` is proved for (all of them, for no events)."""
    leaves = [leaf for event in events for leaf, _ in event.leaves()]
    return tuple(r for r in RELATIONS if all(r in leaf.proved_for() for leaf in leaves))


def banded_event(
    noise_multiplier: Number, sample_rate: Number, bands: int, steps: int, *, unit: str = RECORD
) -> RepeatedEvent:
    """``steps`` steps of DP-FTRL with a ``bands``-banded matrix of unit columns (BandMF).

    ⌈steps ÷ bands⌉ Poisson-sampled Gaussian steps (Choquette-Choo et al. 2023, arXiv 2306.08153,
    on amplification for banded matrices; proof in ``repro.privacy.banded_noise``).

    noise_multiplier: σ, noise deviation on a row of C G ÷ clip norm, for C of columns of norm 1.
    sample_rate: of the units that may join a step, one in ``bands``, each joins with this
        probability: bands × expected batch ÷ number of units. Where all may join every step there
        is no proof, and this event understates what is spent.
    """
    bands, steps = checks.count("bands", bands, least=1), checks.count("steps", steps)
    event = PoissonSampledGaussianEvent(noise_multiplier, sample_rate, unit=unit)
    return RepeatedEvent(event, -(-steps // bands), unit=unit)


_TYPES: dict[str, type[PrivacyEvent]] = {
    kind.__name__: kind
    for kind in (
        NonPrivateEvent,
        GaussianEvent,
        DiscreteGaussianEvent,
        LaplaceEvent,
        PoissonSampledGaussianEvent,
        FixedBatchGaussianEvent,
        ShuffledBatchesEvent,
        DataDependentRateEvent,
        ComposedEvent,
        RepeatedEvent,
        BestOfTrialsEvent,
    )
}


def event_from_dict(data: dict[str, Any]) -> PrivacyEvent:
    """The event whose ``as_dict()`` is ``data``; unknown types and fields are refused."""
    values = dict(data)
    kind = _TYPES.get(str(values.pop("type", None)))
    if kind is None or set(values) != {field.name for field in fields(kind)}:
        raise InputError("event", data, f"a type of {sorted(_TYPES)} with exactly its fields")
    if kind is ComposedEvent:
        values["events"] = tuple(event_from_dict(inner) for inner in values["events"])
    for inside in ("event", "trial"):
        if inside in values:
            values[inside] = event_from_dict(values[inside])
    return kind(**values)
