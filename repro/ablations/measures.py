"""Columns an ablation may ask for beside the accuracy, each computed from a variant's records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from repro.ablations.base import Cell
from repro.runs.guarantees import total_epsilon
from repro.runs.record import RunRecord


@dataclass(frozen=True)
class Measure:
    """A column: what it is called, and its value for a variant (None where there is none)."""

    label: str
    of: Callable[[Cell], Any]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _over_runs(value: Callable[[RunRecord], float | None]) -> Callable[[Cell], float | None]:
    """The mean over seeds of what has a value."""

    def measure(cell: Cell) -> float | None:
        found = [value(record) for record in cell.records]
        return _mean([number for number in found if number is not None])

    return measure


def _fraction(part: str, whole: str) -> Callable[[RunRecord], float | None]:
    def measure(record: RunRecord) -> float | None:
        noted = record.diagnostics
        return noted.get(part, 0.0) / noted[whole] if noted.get(whole) else None

    return measure


def _of_rounds(value: Callable[[dict[str, Any]], float]) -> Callable[[RunRecord], float | None]:
    """The mean over rounds of something in secure aggregation's facts."""

    def measure(record: RunRecord) -> float | None:
        return _mean([value(e["secagg"]) for e in record.history if "secagg" in e])

    return measure


def _traffic(facts: dict[str, Any]) -> float:
    return float(sum(facts["up_bytes"].values()) + sum(facts["down_bytes"].values()))


def _spent(cell: Cell) -> float | None:
    return max((total_epsilon(r, "record") for r in cell.records if r.privacy), default=None)


def late_accuracy(cell: Cell) -> float:
    """Mean accuracy over the last quarter of the rounds (at least one), then over seeds."""
    accuracies = []
    for record in cell.records:
        last = record.history[-max(1, record.rounds // 4) :]
        accuracies.append(sum(entry["accuracy"] for entry in last) / len(last))
    result: float = sum(accuracies) / len(accuracies)
    return result


def _surely_survived(cell: Cell) -> int | None:
    secagg = cell.settings.secagg
    return None if secagg is None else secagg.neighbours + 1 - secagg.threshold


MEASURES: dict[str, Measure] = {
    "parameters": Measure("parameters", lambda cell: int(cell.records[0].model["parameters"])),
    "late_accuracy": Measure("last quarter of rounds (%)", lambda cell: 100 * late_accuracy(cell)),
    "training_seconds": Measure(
        "training (s)", _over_runs(lambda record: record.timings.get("training"))
    ),
    "aggregation_seconds": Measure(
        "aggregation (s)", _over_runs(lambda record: record.timings.get("aggregation"))
    ),
    "epsilon": Measure("ε of a record, total", _spent),
    "gradients_clipped": Measure(
        "gradients clipped (fraction)", _over_runs(_fraction("gradients_clipped", "gradients"))
    ),
    "updates_clipped": Measure(
        "updates clipped (fraction)", _over_runs(_fraction("updates_clipped", "updates"))
    ),
    "error_bound": Measure(
        "largest possible error of a coordinate",
        _over_runs(_of_rounds(lambda facts: facts["max_error_bound"])),
    ),
    "survivors": Measure(
        "survivors a round", _over_runs(_of_rounds(lambda facts: facts["survivors"]))
    ),
    "left_out": Measure(
        "sums left out a round",
        _over_runs(_of_rounds(lambda facts: float(facts.get("left_out", 0)))),
    ),
    "traffic": Measure("bytes a round, all hospitals", _over_runs(_of_rounds(_traffic))),
    "tolerance": Measure("drop-outs always survived", _surely_survived),
}
