"""Table 2: what every reading of the paper's setting guarantees, and the noise an ε needs.

Command: ``repro table 2``; the comparison with a tight accountant is that of ``repro bench
tightness --out OUT`` kept in ``OUT/bench/tightness.json``. Cost and hardware: seconds on any
machine, two minutes with that comparison; no runs, accounting only (the numbers are computed in
``table2_privacy``). Expected: no reading reaches the ε = 6 that the setting names; the documented
noise gives 2,759 for a hospital's update over 50 rounds [calc]; Rényi accounting gives away
10–13 % over the thousands of steps of the paper's setting.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from repro.report.items import table2_privacy as numbers
from repro.report.rows import table_of_rows
from repro.report.sources import Sources
from repro.report.table import Table
from repro.report.tightness import tightness_table

TITLE = "Table 2. Privacy: what each reading guarantees"
CAPTION = "Computed by the accountant; independent of data, profile and seeds."
LABELS = {
    "epsilon_round": "ε, one round",
    "epsilon_total": f"ε, {numbers.ROUNDS} rounds",
    "delta": "δ",
    "sigma": "σ",
    "sensitivity": "L2 sensitivity",
}


def build(sources: Sources) -> list[Table]:
    return [*_computed(), tightness_table(sources)]


def privacy_summary(sources: Sources) -> Table:
    """Table 2 in short, for the report: no notes, and no exchange of a hospital's update."""
    full = build(sources)[0]
    kept = [row for row in full.rows if (row["unit"], row["relation"]) != ("hospital", "replace")]
    caption = (
        f"{full.caption} Notes, and what replacing a hospital's update costs: tables/table2.md."
    )
    return replace(full, rows=kept, notes=(), caption=caption)


@functools.cache  # they depend on nothing
def _computed() -> tuple[Table, ...]:
    needs = (
        ("b", "updates", "σ on an update seen alone", numbers.noise_for_updates),
        ("c", "sums", "σ of each hospital where only the sum is seen", numbers.noise_for_sums),
        ("d", "records", "noise multiplier of record-level DP-SGD", numbers.noise_for_records),
    )
    return (
        table_of_rows(
            "table2", TITLE, numbers.rows(), caption=CAPTION, notes=numbers.notes(), labels=LABELS
        ),
        *(
            table_of_rows(
                f"table2-{name}",
                f"Table 2{letter}. Noise for a total ε: {what}",
                rows(),
                caption=CAPTION,
                labels=LABELS,
            )
            for letter, name, what, rows in needs
        ),
    )
