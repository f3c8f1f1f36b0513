"""Secure aggregation as the federation's aggregator: updates and weights in, weighted mean out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from repro.checks import check_above_zero, check_count, check_counts
from repro.errors import InputError
from repro.random import RootSeed
from repro.secagg.context import DIGEST_BYTES, settings_digest
from repro.secagg.driver import Drop, RoundDriver
from repro.secagg.encoding import Encoding
from repro.secagg.errors import RoundFailed
from repro.secagg.field import Field
from repro.secagg.hospital import Contribution
from repro.secagg.rounds import PHASES, Round
from repro.secagg.simulation import Party, play


@dataclass(frozen=True)
class SecAggSettings:
    """threshold and neighbours: the paper's 5 shares (the hospital and 4 neighbours), 4 needed
    [code A]; with fewer hospitals than 5, all of them are neighbours and a majority is needed.

    clip_range: values of an update beyond ± this are clipped and counted (Flower's default).
    max_weight: a public bound on every n_i [code A: 10000]; the closer, the finer the steps.
    field_bits: 31 (4 bytes a coordinate) or 61 (8 bytes).
    levels: quantisation levels of a coordinate; None: as many as the field has room for.
    minimum_survivors: no sum of fewer is unmasked (2, or all of a smaller federation).
    equal_weights: every hospital counts as one. Else the total weight of one round less that of
        another with one hospital fewer is that hospital's size.
    """

    threshold: int = 4
    neighbours: int = 4
    clip_range: float = 8.0
    max_weight: int = 10_000
    field_bits: int = 31
    levels: int | None = None
    minimum_survivors: int = 2
    equal_weights: bool = False

    def __post_init__(self) -> None:
        check_counts(self, threshold=1, neighbours=1, minimum_survivors=1, max_weight=1)
        check_above_zero(self, "clip_range")
        if self.levels is not None:
            check_counts(self, levels=3)
        if not isinstance(self.equal_weights, bool):
            raise InputError("equal_weights", self.equal_weights, "True or False")
        object.__setattr__(self, "field_bits", self.encoding(1).field.bits)

    def encoding(self, hospitals: int) -> Encoding:
        """How ``hospitals`` of them encode; raises InputError where the field has no room."""
        return Encoding(
            Field(self.field_bits),
            hospitals,
            self.clip_range,
            1 if self.equal_weights else self.max_weight,
            self.levels,
        )

    def for_hospitals(self, count: int) -> tuple[int, int]:
        """(threshold, neighbours) in a federation of ``count``."""
        if count > self.neighbours:
            return self.threshold, self.neighbours
        return min(self.threshold, count // 2 + 1), count - 1


@dataclass(frozen=True)
class Aggregated:
    """One round's result and record.

    mean: (P,) float64, Σ n_i·x_i / Σ n_i over ``survivors``; no coordinate is off by more than
    ``max_error_bound`` from that mean of the clipped updates. dropped: hospitals lost in any
    phase (one lost after its masked input arrived is a survivor too). clipped_count: values
    clipped, over all survivors. excluded: hospital -> the lie it was left out for. up_bytes,
    down_bytes, hospital_seconds (encoding included) and server_seconds: by phase; hospital
    figures are summed over the hospitals.
    """

    mean: np.ndarray
    survivors: tuple[int, ...]
    dropped: tuple[int, ...]
    weight: int
    max_error_bound: float
    clipped_count: int
    refusals: tuple[str, ...]
    excluded: Mapping[int, str]
    up_bytes: dict[str, int]
    down_bytes: dict[str, int]
    hospital_seconds: dict[str, float]
    server_seconds: dict[str, float]


class SecureAggregator:
    """Runs the protocol between its own identities, round after round, in this process.

    hospitals: ids, ascending or not. Identities and session are fresh from the operating
    system in every instance, and every call is a new round with fresh keys, so a federation
    that resumes never meets an old mask; the result depends on none of them.
    """

    def __init__(self, settings: SecAggSettings, hospitals: Sequence[int]) -> None:
        self.settings = settings
        self._party = Party(hospitals)
        self.encoding = settings.encoding(len(hospitals))
        self._rounds_held = 0
        self._training = settings_digest(asdict(settings))
        self._round(1, bytes(DIGEST_BYTES))  # bad thresholds are found here, not in a round

    def aggregate(
        self,
        updates: Mapping[int, np.ndarray] | Iterable[tuple[int, np.ndarray]],
        weights: Mapping[int, int | float],
        *,
        round: int,
        seed: RootSeed,
        drop: Drop | None = None,
        model: bytes = bytes(DIGEST_BYTES),
    ) -> Aggregated:
        """The weighted mean of the survivors' updates.

        updates: hospital -> (P,) float32 or float64, as a mapping or as pairs; a hospital
        without one is taken as lost before its masked input. weights: hospital -> n_i, whole
        numbers up to ``max_weight``. round: number of the federation's round; it and ``seed``
        key the stochastic rounding. drop: phase -> hospitals lost before they send in it.
        model: ``model_digest`` of what the updates are relative to, if there is such a thing.
        Raises RoundFailed when too few are left (the next round is unharmed), ImpossibleSum
        where the sum is spoiled, InputError for vectors of different lengths, values that are
        not finite or weights out of range.
        """
        vectors = dict(updates)
        dimension = self._common_length(vectors, weights)
        lost = {phase: set((drop or {}).get(phase, ())) for phase in PHASES}
        lost.update({phase: set(gone) for phase, gone in (drop or {}).items()})
        lost["masked"] |= set(self._party.hospitals) - set(vectors)
        round_ = self._round(dimension, model)
        driver = RoundDriver(round_, self._party.hospitals, self._party.server, drop=lost)
        self._rounds_held = round_.number  # all hospitals join it, whatever comes

        def contribution(hospital: int) -> Contribution:
            key = seed.derive("secagg rounding", hospital, round)
            return Contribution(vectors[hospital], self._weight(weights[hospital]), key)

        completed = play(driver, contribution)
        decoded, traffic = driver.decode(), driver.traffic
        return Aggregated(
            mean=decoded.mean,
            survivors=completed.survivors,
            dropped=tuple(sorted(set().union(*lost.values()))),
            weight=decoded.weight,
            max_error_bound=decoded.max_error_bound,
            clipped_count=decoded.clipped_count,
            refusals=completed.refusals,
            excluded=completed.excluded,
            up_bytes=traffic.up_bytes,
            down_bytes=traffic.down_bytes,
            hospital_seconds=traffic.hospital_seconds,
            server_seconds=traffic.server_seconds,
        )

    def _weight(self, weight: int | float) -> int:
        return 1 if self.settings.equal_weights else _whole(weight)

    def _round(self, length: int, model: bytes) -> Round:
        count = len(self._party.hospitals)
        threshold, neighbours = self.settings.for_hospitals(count)
        return Round(
            directory=self._party.directory,
            session=self._party.session,
            number=self._rounds_held + 1,
            threshold=threshold,
            neighbours=neighbours,
            encoding=self.encoding,
            length=length,
            model=model,
            training=self._training,
            minimum_survivors=min(self.settings.minimum_survivors, count),
        )

    def _common_length(
        self, vectors: Mapping[int, np.ndarray], weights: Mapping[int, int | float]
    ) -> int:
        strangers = sorted(set(vectors) - set(self._party.hospitals))
        if strangers:
            raise InputError("updates", strangers, "ids of the aggregator's hospitals")
        without = sorted(set(vectors) - set(weights))
        if without:
            raise InputError("weights", without, "a weight for every update")
        shapes = sorted({vector.shape for vector in vectors.values()})
        if not shapes:
            raise RoundFailed("masked", [], "an update")
        if len(shapes) != 1 or len(shapes[0]) != 1:
            raise InputError("updates", shapes, "vectors of one length")
        for hospital, vector in vectors.items():
            _whole(weights[hospital])
            self.encoding.check(vector, self._weight(weights[hospital]))
        return int(shapes[0][0])


def _whole(weight: int | float) -> int:
    return check_count("weight", weight, least=0)  # of training examples
