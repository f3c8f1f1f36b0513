"""Table 4: the DP-SGD engines' time and memory beside plain SGD and Opacus.

Command: ``repro table 4``; the numbers are those of ``repro bench dpsgd --json`` (and
``kernels``, ``train``) kept in ``OUT/bench/``. Cost and hardware: a second to draw; the benchmark
takes minutes on 2 cores. Expected: the best engine within 1.4 times a plain step.
"""

from __future__ import annotations

from repro.report.sources import Sources
from repro.report.table import Table, benchmark_table, empty_table

PARTS = (
    ("dpsgd", "table4", "Table 4. DP-SGD engines: time and memory of a step"),
    ("kernels", "table4-kernels", "Table 4b. The fused clip-and-noise kernel"),
    ("train", "table4-train", "Table 4c. One local epoch without privacy"),
)


def build(sources: Sources) -> list[Table]:
    tables = []
    for bench, name, title in PARTS:
        rows = sources.side(f"bench/{bench}")
        if rows is None:
            how = f"repro bench {bench} --json > OUT/bench/{bench}.json"
            caption = "Nothing was measured here."
            tables.append(empty_table(name, title, caption=caption, how=how))
        else:
            notes = ["Contestants took turns in one run; relative to the baseline's median."]
            tables.append(benchmark_table(name, title, rows, notes))
    return tables
