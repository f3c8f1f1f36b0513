"""A private total over hospitals: each adds its share of the noise, the secure sum adds them up.

The one function others build on: per-hospital sums of clipped contributions in, noisy total out,
and the event for the accountant. Any statistic will do (a gradient, a matrix of second moments,
counts), as long as one record adds at most ``plan.sensitivity`` to it in L2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from repro.accounting import PrivacyEvent
from repro.errors import InputError
from repro.federated.shared.noise_plan import NoisePlan
from repro.privacy.integer_gaussian import integer_gaussian
from repro.privacy.noise_key import digest, noise_keys
from repro.randomness import RootSeed
from repro.runs.settings import SecAggParameters
from repro.secagg import (
    Field,
    IntegerEncoding,
    Party,
    Round,
    RoundFailed,
    Traffic,
    run_round,
    settings_digest,
)
from repro.secagg.context import DIGEST_BYTES
from repro.shapes import Float, Shaped

_WORD = 2**32


@dataclass(frozen=True)
class Release:
    """A noisy total, and what it took.

    total: (P,) float64, Σ_i s_i + noise over ``survivors``, on the plan's grid.
    protocol: did the secure aggregation protocol run, or only its sum (``PlainIntegerSum``)?
    up_bytes, down_bytes: by phase, of all hospitals.
    """

    total: Float[np.ndarray, " size"]
    survivors: tuple[int, ...]
    plan: NoisePlan
    protocol: bool
    up_bytes: dict[str, int] = field(default_factory=dict)
    down_bytes: dict[str, int] = field(default_factory=dict)

    def event(self, *, colluders: int | None = None) -> PrivacyEvent:
        """What this release cost a record of an honest survivor's.

        colluders: hospitals whose shares the adversary knows; None: as many as were planned.
        """
        known = self.plan.colluders if colluders is None else colluders
        return self.plan.event(len(self.survivors) - known)


@runtime_checkable
class Summation(Protocol):
    """What trainers take their totals from: ``PrivateSum`` in everything that is called private."""

    plan: NoisePlan

    def share(
        self, hospital: int, values: Float[np.ndarray, " size"], *, round: int, step: int
    ) -> Shaped[np.ndarray, " size"]:
        """A hospital's (P,) floats as it hands them to the sum."""
        ...

    def add_up(
        self,
        shares: Mapping[int, Shaped[np.ndarray, " size"]],
        *,
        round: int,
        step: int = 0,
        protocol: bool = True,
        model: bytes = bytes(DIGEST_BYTES),
    ) -> Release:
        """hospital -> what ``share`` gave; their total. See ``PrivateSum.add_up``."""
        ...


@dataclass(frozen=True)
class SumContext:
    """What all hospitals must agree on in a sum: ``model_digest`` of what it is relative to, and
    its name. Of two that differ nothing is unmasked."""

    model: bytes = bytes(DIGEST_BYTES)
    name: bytes = b""


def integer_encoding(plan: NoisePlan) -> IntegerEncoding:
    """Integers as they are, one of them worth the plan's granularity."""
    return IntegerEncoding(Field(plan.field_bits), plan.hospitals, scale=plan.granularity)


class PlainIntegerSum:
    """The sum alone, without the protocol: for simulation, where nobody is there to hide from."""

    def __init__(self, plan: NoisePlan) -> None:
        self.plan, self.encoding = plan, integer_encoding(plan)

    def sum(
        self,
        vectors: Mapping[int, Shaped[np.ndarray, " size"]],
        traffic: Traffic,
        bound: SumContext,
    ) -> tuple[Shaped[np.ndarray, " size"], tuple[int, ...]]:
        """hospital -> (P,) int64; returns their sum in the field and whose it is.

        Raises RoundFailed where fewer are left than the plan allows.
        """
        if len(vectors) < self.plan.least_survivors:
            needed = f"{self.plan.least_survivors} survivors"
            raise RoundFailed("masked", sorted(vectors), needed)
        field = self.encoding.field
        total = field.zeros(self.plan.dimension)
        for vector in vectors.values():
            field.add_into(total, self.encoding.encode(vector, 1, 0))
        return total, tuple(sorted(vectors))


class ProtocolSum(PlainIntegerSum):
    """The same bits by the secure aggregation protocol in this process: one session, a fresh round
    for every sum.

    Hospitals themselves refuse to unmask a sum with more drop-outs than planned (the round's
    ``minimum_survivors``), so that nothing comes out that has less noise than is accounted for.
    Plan and protocol settings are bound into every round, and what the caller binds.
    """

    def __init__(
        self, plan: NoisePlan, hospitals: Collection[int], settings: SecAggParameters
    ) -> None:
        super().__init__(plan)
        self.settings = settings
        self._training = settings_digest({"plan": plan.facts(), "secagg": asdict(settings)})
        self._party = Party(hospitals)
        self._number = 0
        _check_coalition(plan, self._round(1, SumContext()))

    def sum(
        self,
        vectors: Mapping[int, Shaped[np.ndarray, " size"]],
        traffic: Traffic,
        bound: SumContext,
    ) -> tuple[Shaped[np.ndarray, " size"], tuple[int, ...]]:
        lost = set(self._party.hospitals) - set(vectors)
        self._number += 1
        completed = run_round(
            self._party,
            self._round(self._number, bound),
            vectors.__getitem__,
            drop={"masked": lost},
            traffic=traffic,
        )
        return completed.total, completed.survivors

    def _round(self, number: int, bound: SumContext) -> Round:
        return Round(
            directory=self._party.directory,
            session=self._party.session,
            number=number,
            threshold=self.settings.threshold,
            neighbours=self.settings.neighbours,
            encoding=self.encoding,
            length=self.plan.dimension,
            model=bound.model,
            training=self._training,
            application=bound.name,
            minimum_survivors=max(2, self.plan.least_survivors),
        )


def _check_coalition(plan: NoisePlan, round_: Round) -> None:
    """Refuse a plan that trusts the protocol further than it goes (docs/secure-aggregation.md)."""
    confirmers = len(round_.confirmers)
    complete = round_.neighbours == len(round_.roster) - 1
    tolerated = min(
        round_.threshold - 1,
        2 * round_.quorum - confirmers - 1,
        len(round_.roster) if complete else round_.neighbours - 1 - plan.drop_outs,
    )
    if plan.colluders > tolerated:
        raise InputError(
            "colluders",
            plan.colluders,
            f"at most {tolerated}, which secure aggregation with {round_.neighbours} neighbours, "
            f"threshold {round_.threshold} and {plan.drop_outs} lost withstands",
        )


class PrivateSum:
    """Totals of one plan, one after another.

    hospitals: ids of all K; purpose: names the noise, so that two statistics of one run never
    share any; secagg: settings of the protocol, None to add up without it.
    """

    def __init__(
        self,
        plan: NoisePlan,
        hospitals: Collection[int],
        *,
        seed: RootSeed,
        purpose: str,
        secagg: SecAggParameters | None,
    ) -> None:
        if len(set(hospitals)) != plan.hospitals:
            raise InputError("hospitals", sorted(hospitals), f"the plan's {plan.hospitals}")
        self.plan, self.seed, self.purpose = plan, seed, purpose
        self.hospitals = tuple(sorted(hospitals))
        self._plain = PlainIntegerSum(plan)
        self._protocol = None if secagg is None else ProtocolSum(plan, hospitals, secagg)
        self._last = (-1, -1)

    def release(
        self,
        sums: Mapping[int, Float[np.ndarray, " size"]],
        *,
        round: int,
        step: int = 0,
        protocol: bool = True,
        model: bytes = bytes(DIGEST_BYTES),
    ) -> Release:
        """The noisy total of the hospitals in ``sums``; whoever is missing was lost.

        sums: hospital -> (P,) float32 or float64, Σ over its records of contributions of L2 norm
            at most the plan's sensitivity; zeros for a hospital without records in this sum.
        Everything else as in ``add_up``, which this calls with every hospital's ``share``.
        """
        self._check_later(round, step)  # before a share is made: of a used step none is
        shares = {one: self.share(one, sums[one], round=round, step=step) for one in sorted(sums)}
        return self.add_up(shares, round=round, step=step, protocol=protocol, model=model)

    def share(
        self, hospital: int, values: Float[np.ndarray, " size"], *, round: int, step: int
    ) -> Shaped[np.ndarray, " size"]:
        """What a hospital hands to the secure sum: its sum, rounded and noised; (P,) int64.

        Raises ``NoiseReused`` for other values in the same round and step than before.
        """
        plan = self.plan
        if values.shape != (plan.dimension,):
            raise InputError("sums", values.shape, f"vectors of shape ({plan.dimension},)")
        largest = float(np.max(np.abs(values), initial=0.0))
        if not largest <= plan.largest_sum:  # NaN too
            raise InputError("sums", largest, f"finite, and at most {plan.largest_sum:g}")
        steps = np.rint(values.astype(np.float64) / plan.granularity).astype(np.int64)
        result: Shaped[np.ndarray, " size"] = steps + self.noise(hospital, round=round, step=step)
        # Here, where the noise goes on: two shares of one key would show their difference bare,
        # whoever adds them up.
        noise_keys.use(
            f"share of {self.purpose}",
            self.seed,
            digest(torch.from_numpy(result)),
            party=hospital,
            round=round,
            step=step,
        )
        return result

    def add_up(
        self,
        shares: Mapping[int, Shaped[np.ndarray, " size"]],
        *,
        round: int,
        step: int = 0,
        protocol: bool = True,
        model: bytes = bytes(DIGEST_BYTES),
    ) -> Release:
        """The total of shares that were made for this round and step.

        round, step: 0 … 2³² − 1, later than those before: noise is never used twice. Nor by another
            ``PrivateSum`` of this seed and purpose in this process, unless on the very same sums.
        protocol: False leaves the protocol out and gives the same bits.
        model: ``model_digest`` of what the sums were computed at, if there is such a thing.
        Raises RoundFailed, releasing nothing, when more are lost than planned.
        """
        self._check_later(round, step)
        strangers = sorted(set(shares) - set(self.hospitals))
        if strangers:
            raise InputError("sums", strangers, "ids of the plan's hospitals")
        self._last = (round, step)
        vectors = {one: shares[one] for one in sorted(shares)}
        # All that the sum is of: with one hospital less the noise that is left is another.
        covered = digest(*map(torch.from_numpy, vectors.values()), note=f"{list(vectors)}")
        noise_keys.use(f"sum of {self.purpose}", self.seed, covered, round=round, step=step)
        run = protocol and self._protocol is not None
        traffic = Traffic()
        adder = self._protocol if run and self._protocol is not None else self._plain
        bound = SumContext(model, f"{self.purpose}, round {round}, step {step}".encode())
        total, survivors = adder.sum(vectors, traffic, bound)
        return Release(
            total=self._plain.encoding.centred(total) * self.plan.granularity,
            survivors=survivors,
            plan=self.plan,
            protocol=run,
            up_bytes=dict(traffic.up_bytes),
            down_bytes=dict(traffic.down_bytes),
        )

    def _check_later(self, round: int, step: int) -> None:
        if not self._last < (round, step) < (_WORD, _WORD) or not 0 <= step < _WORD:
            raise InputError("round, step", (round, step), f"later than {self._last}, below 2^32")

    def noise(self, hospital: int, *, round: int, step: int) -> Shaped[np.ndarray, " size"]:
        """A hospital's share of the noise, in grid steps, (P,) int64."""
        key = self.seed.derive("shared noise", self.purpose, hospital)
        plan = self.plan
        return integer_gaussian(plan.dimension, plan.width, seed=key, step=round * _WORD + step)
