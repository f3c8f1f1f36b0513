"""``repro bench secagg --bound``: rounds with proofs of the norm beside rounds without, in turns.

The same float vectors, cut to one norm, weight 1; 4 neighbours and threshold 4 without proofs, a
committee of 4 of whom 1 may lie with them. A hospital's time includes encoding its vector, a
member's is what the committee costs it beyond that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from repro.bench.harness import Row, take_turns
from repro.federated.memory import keep_freed_memory
from repro.secagg import PHASES, Contribution, Encoding, Field, Party, Round, Traffic, run_round
from repro.secagg.bounded import BoundedRound, NormBound, run_bounded_round

CASES = ((10, 4_608), (10, 166_176), (10, 4_802_120), (100, 4_608))
PLAIN, BOUNDED = "ours", "ours, norms proved"
NORM = 1e6  # of every vector, in units of the integers that are summed
FAULTS = 1

Cost = dict[str, float]


def measure(cases: Sequence[tuple[int, int]], repeats: int) -> list[Row]:
    """cases: hospitals, dimension."""
    keep_freed_memory()  # as a run does; else small cases pay for pages that large ones have got
    rows: list[Row] = []
    for hospitals, dimension in cases:
        label, case = f"K={hospitals} P={dimension:,}", (hospitals, dimension)
        played = {PLAIN: partial(plain_round, *case), BOUNDED: partial(bounded_round, *case)}
        costs = take_turns(label, played, repeats)
        rows += _rows(label, costs, NormBound(NORM, hospitals))
    return rows


def _rows(label: str, costs: dict[str, list[Cost]], bound: NormBound) -> list[Row]:
    units = {"hospital": "ms", "member": "ms", "server": "ms", "largest error": ""}
    rows = []
    for quantity in costs[BOUNDED][0]:
        unit = units.get(quantity, "bytes")
        plain, proved = (
            [cost[quantity] for cost in costs[name] if quantity in cost]
            for name in (PLAIN, BOUNDED)
        )
        metric = f"{label}: {quantity}"
        if plain:
            rows.append(Row.of(PLAIN, metric, unit, plain))
        note = ""
        if quantity == "hospital":
            note = f"proved: {bound.proved / bound.norm:.2f} × the honest norm, but for 2⁻⁴⁰"
        row = Row.of(BOUNDED, metric, unit, proved, note=note)
        base = median(plain) if plain else 0.0
        rows.append(row.over(base) if base else row)
    return rows


def plain_round(hospitals: int, dimension: int) -> Cost:
    party = Party(range(hospitals))
    round_ = Round(
        **_shared(party, dimension),
        threshold=4,
        neighbours=4,
        encoding=Encoding(Field(31), hospitals, clip_range=1.0, max_weight=1),
    )
    traffic = Traffic()
    done = run_round(
        party, round_, lambda one: Contribution(_vector(one, dimension), 1, one), traffic=traffic
    )
    started = perf_counter()
    decoded = round_.encoding.decode(done.total, hospitals)
    traffic.server_seconds["unmask"] += perf_counter() - started
    return {
        "hospital": 1e3 * sum(traffic.hospital_seconds[phase] for phase in PHASES) / hospitals,
        "server": 1e3 * sum(traffic.server_seconds.values()),
        "hospital up": sum(traffic.up_bytes.values()) / hospitals,
        "hospital down": sum(traffic.down_bytes.values()) / hospitals,
        "largest error": _error(decoded.mean, hospitals),
    }


def bounded_round(hospitals: int, dimension: int) -> Cost:
    party = Party(range(hospitals))
    bound = NormBound(NORM + dimension**0.5 / 2, hospitals)
    round_ = BoundedRound(**_shared(party, dimension), bound=bound, faults=FAULTS)
    encoding = 0.0

    def vector(one: int) -> np.ndarray:
        nonlocal encoding
        unscaled = _vector(one, dimension)
        started = perf_counter()
        scaled = unscaled.astype(np.float64)
        scaled *= NORM
        whole = np.rint(scaled, out=scaled).astype(np.int64)
        encoding += perf_counter() - started
        return whole

    done = run_bounded_round(party, round_, vector)
    costs, members = done.costs, len(round_.committee)
    return {
        "hospital": 1e3 * (costs.seconds["hospital"] + encoding) / hospitals,
        "member": 1e3 * costs.seconds["member"] / members,
        "server": 1e3 * costs.seconds["server"],
        "hospital up": costs.up_bytes["hospital"] / hospitals,
        "hospital down": costs.down_bytes["hospital"] / hospitals,
        "member up": costs.up_bytes["member"] / members,
        "member down": costs.down_bytes["member"] / members,
        "largest error": _error(done.total / (NORM * hospitals), hospitals),
    }


def _shared(party: Party, dimension: int) -> dict[str, Any]:
    digests = {"model": bytes(32), "training": bytes(32)}
    named = {"directory": party.directory, "session": party.session, "number": 1}
    return {**named, **digests, "length": dimension}


def _vector(hospital: int, dimension: int) -> np.ndarray:
    """(P,) float32 of norm 1."""
    normal = np.random.default_rng(hospital).standard_normal(dimension, dtype=np.float32)
    result: np.ndarray = normal / np.linalg.norm(normal)
    return result


def _error(mean: np.ndarray, hospitals: int) -> float:
    exact = np.zeros(len(mean))
    for one in range(hospitals):
        exact += _vector(one, len(mean)).astype(np.float64)
    return float(np.abs(mean - exact / hospitals).max())
