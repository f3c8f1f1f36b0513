"""One hospital that lies about its update, and sums of few hospitals that limit what it can do.

Inside a secure sum nobody sees a single update, so nobody can refuse one: a hospital may put in any
vector that the field holds, and count it with any weight. What the sum itself shows is all that is
left to go by, and the fewer hospitals are in it the more it shows, of the liar and of the others.
For the ablation ``hostile``; no arm has a liar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from repro.errors import InputError
from repro.federated.aggregation import Aggregated
from repro.federated.parallel.ranks import Ranks
from repro.federated.secure import SecureAggregation, public_bound
from repro.randomness import RootSeed
from repro.runs.settings import Robustness, SecAggParameters
from repro.secagg import Contribution
from repro.shapes import Float

_TIMES_THE_MEDIAN = 2.0  # a sum whose mean is longer than so many medians of all sums is left out


class GroupedAggregation:
    """FedAvg's weighted mean from secure sums of ``settings.group`` hospitals each.

    Hospitals are divided in the order of their ids; what is left over joins the last sum. weights:
    hospital -> its training images, public. clip_norm: what every honest update keeps to, hence
    every honest mean. With ``settings.alarm``, sums whose mean is longer than that, or than twice
    the median of the sums' means, are left out; if all are, the model stays as it was.
    """

    def __init__(
        self,
        settings: Robustness,
        secagg: SecAggParameters,
        weights: dict[int, int],
        clip_norm: float,
        seed: RootSeed,
        ranks: Ranks,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        if ranks.size > 1:
            raise InputError("ranks", ranks.size, "1: sums of groups are taken in one process")
        self.settings, self.weights, self.clip_norm = settings, weights, clip_norm
        self._sums = [
            _WithLiars(settings, secagg.among(len(group)), group, seed, ranks, training)
            for group in _divided(weights, settings.group)
        ]
        self._of = {one: each for each in self._sums for one in each.members}

    def start(self, round_number: int, weights: dict[int, int], like: Tensor) -> None:
        self._like = like
        for each in self._sums:
            each.start(round_number, each.members, like)

    def add(self, hospital: int, update: Float[Tensor, " size"]) -> None:
        self._of[hospital].add(hospital, update)

    def finish(self) -> Aggregated:
        ended = [each.finish() for each in self._sums]
        found = [one for one in ended if one.survivors]  # a failed sum has no length to go by
        lengths = [float(one.mean.norm()) for one in found]
        longest = np.inf
        if self.settings.alarm and found:  # the encoding's rounding is far below a per cent
            longest = min(1.01 * self.clip_norm, _TIMES_THE_MEDIAN * float(np.median(lengths)))
        kept = [one for one, length in zip(found, lengths, strict=True) if length <= longest]
        survivors = tuple(sorted(one for each in kept for one in each.survivors))
        total = torch.zeros_like(self._like)
        for each in kept:
            total += sum(self.weights[one] for one in each.survivors) * each.mean
        mean = total / max(1, sum(self.weights[one] for one in survivors))
        facts = _together([one.facts["secagg"] for one in ended])
        facts |= {"sums": len(ended), "left_out": len(found) - len(kept)}
        return Aggregated(mean, survivors, {"secagg": facts})


class _WithLiars(SecureAggregation):
    """The first ``settings.hostile`` hospitals of all do not put in what they trained."""

    def __init__(
        self,
        robustness: Robustness,
        settings: SecAggParameters,
        members: dict[int, int],
        *others: Any,
    ) -> None:
        super().__init__(settings, members, *others)
        self.robustness, self.members = robustness, members

    def contribution(self, hospital: int, update: Float[Tensor, " size"]) -> Contribution:
        honest = super().contribution(hospital, update)
        if hospital >= self.robustness.hostile:
            return honest
        if self.robustness.lie == "largest":
            most = -self.settings.value_range * np.sign(honest.vector)
            return replace(honest, vector=most, weight=public_bound(self.members))
        times = turning_round(self.members, hospital)
        return replace(honest, vector=times * honest.vector)


def turning_round(weights: Mapping[int, int], hospital: int) -> float:
    """What makes the mean minus a hospital's own update, as if all the others' were like it."""
    return (weights[hospital] - 2 * sum(weights.values())) / weights[hospital]


def _divided(weights: dict[int, int], size: int | None) -> list[dict[int, int]]:
    ids = sorted(weights)
    size = min(size or len(ids), len(ids))
    starts = range(0, len(ids) - size + 1, size)
    ends = [*starts[1:], len(ids)]
    return [
        {one: weights[one] for one in ids[start:end]}
        for start, end in zip(starts, ends, strict=True)
    ]


def _together(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all sums of a round: traffic and counts added up, the largest error bound."""
    result: dict[str, Any] = {
        "survivors": sum(one["survivors"] for one in facts),
        "dropped": sorted(lost for one in facts for lost in one.get("dropped", ())),
        "max_error_bound": max((one.get("max_error_bound", 0.0) for one in facts), default=0.0),
        "clipped_values": sum(one.get("clipped_values", 0) for one in facts),
    }
    failures = [one["failed"] for one in facts if "failed" in one]
    if failures:
        result["failed"] = "; ".join(failures)
    for way in ("up_bytes", "down_bytes"):
        total: Counter[str] = Counter()
        for one in facts:
            total.update(one.get(way, {}))
        result[way] = dict(total)
    return result
