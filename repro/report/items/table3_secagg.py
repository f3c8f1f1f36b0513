"""Table 3: secure aggregation's cost: bytes, time, error.

Command: ``repro table 3``; the timings are those of ``repro bench secagg --json`` kept in
``OUT/bench/secagg.json``. Cost and hardware: a second to draw; the benchmark takes minutes on
2 cores. Expected: 4 bytes per parameter on the wire (the authors' library sends 8 [code]), errors
far below what accuracy notices, and so no cost in accuracy.
"""

from __future__ import annotations

from repro.report.sources import Sources
from repro.report.statistics import Summary
from repro.report.table import NOT_RUN, Column, Table, benchmark_table, cell
from repro.runs.arms import ARMS
from repro.runs.record import RunRecord

MEASURES = {
    "up": "sent (kB)",
    "down": "received (kB)",
    "per_parameter": "masked update (bytes a parameter)",
    "seconds": "seconds a round, all hospitals",
    "error": "error bound",
    "clipped": "coordinates clipped",
}
BENCH_TITLE = "Table 3b. Secure aggregation beside its peers"
BOUNDS_TITLE = "Table 3c. What it costs that every hospital proves its vector's norm"


def build(sources: Sources) -> list[Table]:
    found, note = sources.side("bench/secagg"), "All contestants in one run."
    bench = benchmark_table("table3-bench", BENCH_TITLE, "secagg", found, note)
    bounds = benchmark_table(
        "table3-bounds",
        BOUNDS_TITLE,
        "secagg_bound",
        sources.side("bench/secagg_bound"),
        "Both in one run (`repro bench secagg --bound`), taking turns. A member's time and bytes "
        "are beyond what it costs to be a hospital.",
    )
    return [_runs(sources), bench, bounds]


def _runs(sources: Sources) -> Table:
    evidence = sources.evidence
    rows, used = [], []
    for arm in ARMS.values():
        if arm.aggregator != "secure":
            continue
        for hospitals in evidence.hospital_counts:
            runs = [run for run in evidence.runs(arm.name, hospitals) if run.secagg]
            used += runs
            row: dict[str, str] = {"arm": arm.name, "hospitals": str(hospitals)}
            row |= dict.fromkeys(MEASURES, NOT_RUN) if not runs else _measured(runs)
            rows.append(row)
    return Table(
        name="table3",
        title="Table 3. Secure aggregation in the runs",
        columns=[
            Column("arm", "arm"),
            Column("hospitals", "hospitals", number=True),
            *(Column(key, label, number=True) for key, label in MEASURES.items()),
        ],
        rows=rows,
        caption=evidence.caption(used),
        notes=[
            "A hospital and a round (with shared noise: a step), all phases; means over seeds, "
            "bytes of the last round. 1 kB = 1,000 bytes.",
            "Error: the bound the protocol states for one coordinate of the weighted mean. "
            "What it costs in accuracy is among the verdicts.",
        ],
        data=[{"run": run.run_id, "secagg": run.secagg} for run in used],
    )


def _measured(runs: list[RunRecord]) -> dict[str, str]:
    """Means over seeds; "–" where a run doesn't say."""
    found = [_facts(run) for run in runs]
    return {key: cell(_mean([facts.get(key) for facts in found])) for key in MEASURES}


def _facts(run: RunRecord) -> dict[str, int | float]:
    """One run's numbers, per hospital and sum: a round has one, or with shared noise many."""
    last = (run.secagg or {}).get("last", {})
    facts: dict[str, int | float] = {}
    hospitals = max(1, run.hospitals * last.get("protocol_steps", 1))
    for key, direction in (("up", "up_bytes"), ("down", "down_bytes")):
        if direction in last:
            facts[key] = sum(last[direction].values()) / hospitals / 1000
    if "up_bytes" in last and run.model.get("parameters"):
        facts["per_parameter"] = last["up_bytes"]["masked"] / hospitals / run.model["parameters"]
    everywhere = last.get("protocol_steps", 1) == last.get("steps", 1)
    if "aggregation" in run.timings and everywhere:  # else most sums took no protocol
        facts["seconds"] = run.timings["aggregation"] / max(1, run.rounds * last.get("steps", 1))
    for key, name in (("error", "max_error_bound"), ("clipped", "clipped_values")):
        if name in last:
            facts[key] = last[name]
    return facts


def _mean(values: list[int | float | None]) -> float | None:
    known = Summary.of([value for value in values if value is not None])
    return None if known is None else known.mean
