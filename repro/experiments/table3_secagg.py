"""Table 3: secure aggregation's cost: bytes, time, error.

Command: ``repro table 3``; the timings are those of ``repro bench secagg --json`` kept in
``OUT/bench/secagg.json``. Cost and hardware: a second to draw; the benchmark takes minutes on
2 cores. Expected: 8 bytes per parameter on the wire with the paper's field, a quantisation error
of about 5e-6 RMS [code, calc], and so no cost in accuracy.
"""

from __future__ import annotations

from typing import Any

from repro.arms import ARMS
from repro.results.drawing import Sources
from repro.results.rows import benchmark_table, empty_table, table_of_rows
from repro.results.statistics import Summary
from repro.results.table import Table

TITLE = "Table 3. Secure aggregation in the runs"
BENCH_TITLE = "Table 3b. Secure aggregation beside its peers"


def build(sources: Sources) -> list[Table]:
    return [_runs(sources), _bench(sources)]


def _runs(sources: Sources) -> Table:
    evidence = sources.evidence
    rows, used = [], []
    for arm in ARMS.values():
        if arm.aggregator != "secure":
            continue
        for hospitals in evidence.hospital_counts:
            runs = [r for r in evidence.runs(arm.name, hospitals) if r.secagg]
            used += runs
            found = [flatten(run.secagg or {}) for run in runs]
            keys = dict.fromkeys(key for facts in found for key in facts)
            means = {key: _mean([facts.get(key) for facts in found]) for key in keys}
            state: dict[str, Any] = {"arm": arm.name, "hospitals": hospitals, "seeds": len(runs)}
            rows.append({**state, **means})
    if not used:
        return empty_table("table3", TITLE, caption=evidence.caption(used), how="repro reproduce")
    notes = ["Means over seeds of what each run's secure aggregation recorded."]
    return table_of_rows("table3", TITLE, rows, caption=evidence.caption(used), notes=notes)


def flatten(facts: dict[str, Any], prefix: str = "") -> dict[str, int | float]:
    """The numbers of nested dictionaries, by their path in words; lists count their length."""
    flat: dict[str, int | float] = {}
    for key, value in facts.items():
        name = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(value, dict):
            flat.update(flatten(value, name))
        elif isinstance(value, list):
            flat[name] = len(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[name] = value
    return flat


def _mean(values: list[int | float | None]) -> float | int | None:
    known = Summary.of([value for value in values if value is not None])
    if known is None:
        return None
    return int(known.mean) if known.mean == int(known.mean) else known.mean


def _bench(sources: Sources) -> Table:
    bench = sources.side("bench/secagg")
    if bench is None:
        return empty_table(
            "table3-bench",
            BENCH_TITLE,
            caption="Nothing was measured here.",
            how="repro bench secagg --json > OUT/bench/secagg.json",
        )
    return benchmark_table("table3-bench", BENCH_TITLE, bench, ["All contestants in one run."])
