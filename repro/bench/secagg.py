"""``repro bench secagg``: a whole round, ours and Flower's SecAgg+, taking turns in one process.

Both sum the same vectors with the same weights over a 4-regular graph with 5 shares. Threshold 4
(the paper's) up to 10 % lost, 3 above; the lost vanish before their masked input and are
spread evenly over the ring of neighbours, because two close ones would end either protocol.
A hospital's time includes encoding (quantising) its vector, not making it. Each row's ``detail``
holds the medians by phase.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from repro.bench import bounded, flower_secagg
from repro.bench.harness import Row, peak_memory, take_turns
from repro.errors import InputError, MissingDependency
from repro.runs.provenance import environment
from repro.secagg import (
    PHASES,
    Contribution,
    Encoding,
    Field,
    Party,
    Round,
    Traffic,
    model_digest,
    run_round,
)

PAPER_DIMENSION, SMALL_DIMENSION = 4_802_120, 100_000
NEIGHBOURS = 4
OURS, FLOWER = "ours", "flwr SecAgg+"


@dataclass(frozen=True)
class Case:
    """hospitals × dimension × fraction lost; bits of our field."""

    hospitals: int
    dimension: int
    lost: float
    field_bits: int = 31

    @property
    def lost_count(self) -> int:
        return round(self.lost * self.hospitals)

    @property
    def threshold(self) -> int:
        return 4 if self.lost <= 0.1 else 3

    @property
    def label(self) -> str:
        return f"K={self.hospitals} P={self.dimension:,} lost {self.lost:.0%}"

    def vector(self, hospital: int) -> np.ndarray:
        normal = np.random.default_rng(hospital).standard_normal(self.dimension, dtype=np.float32)
        return np.multiply(normal, np.float32(0.05), out=normal)

    def weight(self, hospital: int) -> int:
        return 600 + hospital * 131 % 700

    def spread(self, graph: Mapping[int, Any]) -> set[int]:
        """The lost ones: at even distances along the ring behind the neighbour graph."""
        ring = _ring(graph)
        return {ring[at * len(ring) // self.lost_count] for at in range(self.lost_count)}


@dataclass(frozen=True)
class Cost:
    """One round. Milliseconds of an average hospital and of the server, by phase; bytes of an
    average hospital; error: largest deviation from the exact weighted mean."""

    hospital: dict[str, float]
    server: dict[str, float]
    up: float
    down: float
    error: float


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--hospitals", type=int, nargs="+", metavar="K", help="instead of 10, 100 and 500")
    add("--dimension", type=int, metavar="P", help="instead of 4,802,120 (K=10) and 100,000")
    add("--field-bits", type=int, default=31, choices=[31, 61], help="of our field (31)")
    add("--lost", type=float, nargs="+", default=[0.0, 0.1, 0.3], help="fractions (0 0.1 0.3)")
    add("--repeats", type=int, default=3, help="rounds of each (%(default)s)")
    add("--quick", action="store_true", help="K=10 at 100,000 coordinates only")
    add(
        "--bound",
        action="store_true",
        help="instead: what it costs that every hospital proves its vector's norm; nobody is lost",
    )
    add("--no-memory", action="store_true", help="leave out peak memory (a process each)")


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    cases = _cases(arguments)
    if arguments.bound:
        usual = arguments.hospitals is None and arguments.dimension is None
        chosen = list(dict.fromkeys((case.hospitals, case.dimension) for case in cases))
        chosen = list(bounded.CASES) if usual and not arguments.quick else chosen
        return bounded.measure(chosen, arguments.repeats), environment(("numpy", "cryptography"))
    contestants: dict[str, Callable[[Case], Cost]] = {OURS: our_round}
    missing = ""
    try:
        flower = flower_secagg.load()
        contestants[FLOWER] = partial(flower_round, flower)
    except MissingDependency as failure:
        missing = str(failure)
    rows: list[Row] = []
    for case in cases:
        rows += _measure(case, contestants, arguments, missing)
    return rows, environment(("numpy", "cryptography", "flwr"))


def kept_as(arguments: argparse.Namespace) -> str:
    return "secagg_bound" if arguments.bound else "secagg"


def our_round(case: Case) -> Cost:
    party = Party(range(case.hospitals))
    encoding = Encoding(Field(case.field_bits), case.hospitals)
    round_ = Round(
        directory=party.directory,
        session=party.session,
        number=1,
        threshold=case.threshold,
        neighbours=NEIGHBOURS,
        encoding=encoding,
        length=case.dimension,
        model=model_digest(np.zeros(case.dimension, np.float32)),
        training=bytes(32),
    )

    def contribution(hospital: int) -> Contribution:
        return Contribution(case.vector(hospital), case.weight(hospital), hospital)

    traffic = Traffic()
    lost = case.spread(round_.graph)
    done = run_round(party, round_, contribution, drop={"masked": lost}, traffic=traffic)
    started = perf_counter()
    decoded = encoding.decode(done.total, len(done.survivors))
    traffic.server_seconds["unmask"] += perf_counter() - started
    each = traffic.hospitals
    return Cost(
        {phase: 1e3 * traffic.hospital_seconds[phase] / each[phase] for phase in PHASES},
        {phase: 1e3 * traffic.server_seconds[phase] for phase in PHASES},
        sum(traffic.up_bytes[phase] / each[phase] for phase in PHASES),
        sum(traffic.down_bytes[phase] / each[phase] for phase in PHASES),
        _error(case, decoded.mean, done.survivors),
    )


def flower_round(flower: Any, case: Case) -> Cost:
    with flower_secagg.silenced():
        run = flower_secagg.FlowerRound(
            flower,
            range(case.hospitals),
            case.vector,
            case.weight,
            threshold=case.threshold,
            lost=case.spread,
        )
        mean = run.run()
    name, each = flower_secagg.PHASE_OF, run.clients
    survivors = tuple(node for node in range(case.hospitals) if node not in run.lost)
    return Cost(
        {name[stage]: 1e3 * run.client_seconds[stage] / each[stage] for stage in name},
        {name[stage]: 1e3 * run.server_seconds[stage] for stage in name},
        sum(run.up_bytes[stage] / each[stage] for stage in name),
        sum(run.down_bytes[stage] / each[stage] for stage in name),
        _error(case, mean, survivors),
    )


def _measure(
    case: Case,
    contestants: Mapping[str, Callable[[Case], Cost]],
    arguments: argparse.Namespace,
    missing: str,
) -> list[Row]:
    played = {name: partial(play, case) for name, play in contestants.items()}
    costs = take_turns(case.label, played, arguments.repeats)
    baseline = _rows(case, FLOWER, costs[FLOWER], missing) if FLOWER in costs else []
    ours = _rows(case, OURS, costs[OURS], missing)
    if not arguments.no_memory:
        ours.append(_memory(case, OURS, our_round))
        if FLOWER in costs:
            baseline.append(_memory(case, FLOWER, _flower_alone))
    relative = [
        replace(row, relative=row.median / base.median if base.median else math.nan)
        for row, base in zip(ours, baseline, strict=False)
    ]
    return [*baseline, *(relative or ours)]


def _rows(case: Case, name: str, costs: list[Cost], missing: str) -> list[Row]:
    quantities: dict[str, tuple[str, Callable[[Cost], float]]] = {
        "hospital time": ("ms", lambda cost: sum(cost.hospital.values())),
        "server time": ("ms", lambda cost: sum(cost.server.values())),
        "server unmasking": ("ms", lambda cost: cost.server["unmask"]),
        "up": ("bytes", lambda cost: cost.up),
        "down": ("bytes", lambda cost: cost.down),
        "largest error": ("", lambda cost: cost.error),
    }
    detail = {
        side: {phase: median(getattr(c, side)[phase] for c in costs) for phase in costs[0].hospital}
        for side in ("hospital", "server")
    }
    notes = {
        "hospital time": _by_phase(detail["hospital"]),
        "server time": _by_phase(detail["server"]),
        "up": f"{median(c.up for c in costs) / (4 * case.dimension):.4f} × float32",
    }
    return [
        Row.of(
            name,
            f"{case.label}: {quantity}",
            unit,
            [of(cost) for cost in costs],
            note="; ".join(filter(None, (notes.get(quantity, ""), missing))),
            detail=detail,
        )
        for quantity, (unit, of) in quantities.items()
    ]


def _memory(case: Case, name: str, play: Callable[[Case], Cost]) -> Row:
    print(f"{case.label}: {name}, peak memory", file=sys.stderr)
    peak = peak_memory(partial(play, case))
    value = peak["peak_mib"] - peak["start_mib"]
    note = "above the start (Flower: its import included); the server and the speaking hospital"
    return Row.of(name, f"{case.label}: peak memory", "MiB", [value], note=note, detail=peak)


def _flower_alone(case: Case) -> Cost:
    return flower_round(flower_secagg.load(), case)


def _by_phase(milliseconds: Mapping[str, float]) -> str:
    return " ".join(f"{phase} {value:.2f}" for phase, value in milliseconds.items())


def _error(case: Case, mean: np.ndarray, survivors: tuple[int, ...]) -> float:
    exact = np.zeros(case.dimension)
    for one in survivors:
        exact += case.weight(one) * case.vector(one).astype(np.float64)
    exact /= sum(case.weight(one) for one in survivors)
    return float(np.abs(mean - exact).max())


def _ring(graph: Mapping[int, Any]) -> list[int]:
    """The ring order: of a hospital's neighbours, the next one shares the most with it."""
    near = {one: set(others) - {one} for one, others in graph.items()}
    ring = [min(near)]
    while len(ring) < len(near):
        here = ring[-1]
        ahead = near[here] - set(ring)
        ring.append(max(sorted(ahead), key=lambda other: len(near[other] & near[here])))
    return ring


def _cases(arguments: argparse.Namespace) -> list[Case]:
    for name, values in (("repeats", [arguments.repeats]), ("dimension", [arguments.dimension])):
        if any(value is not None and value < 1 for value in values):
            raise InputError(name, values[0], "at least 1")
    hospitals = arguments.hospitals or ([10] if arguments.quick else [10, 100, 500])
    if min(hospitals) < 6:
        raise InputError("hospitals", min(hospitals), "at least 6 (a ring with 4 neighbours)")
    if not all(0 <= lost <= 0.3 for lost in arguments.lost):
        raise InputError("lost", arguments.lost, "fractions from 0 to 0.3")
    cases = []
    for count in hospitals:
        usual = PAPER_DIMENSION if count <= 10 and not arguments.quick else SMALL_DIMENSION
        dimension = arguments.dimension or usual
        cases += [Case(count, dimension, lost, arguments.field_bits) for lost in arguments.lost]
    return cases
