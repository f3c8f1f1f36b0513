"""Table 4: the DP-SGD engines' time and memory beside plain SGD and Opacus.

Command: ``repro table 4``; the numbers are those of ``repro bench dpsgd --json`` (and
``kernels``, ``train``) kept in ``OUT/bench/``. Cost and hardware: a second to draw; the benchmark
takes minutes on 2 cores. Expected: the best engine within 1.4 times a plain step.
"""

from __future__ import annotations

from repro.report.sources import Sources
from repro.report.table import Table, benchmark_table

PARTS = (
    ("dpsgd", "table4", "Table 4. DP-SGD engines: time and memory of a step"),
    ("kernels", "table4-kernels", "Table 4b. The fused clip-and-noise kernel"),
    ("train", "table4-train", "Table 4c. One local epoch without privacy"),
)


def build(sources: Sources) -> list[Table]:
    note = "Contestants took turns in one run; relative to the baseline's median."
    return [
        benchmark_table(name, title, bench, sources.side(f"bench/{bench}"), note)
        for bench, name, title in PARTS
    ]
