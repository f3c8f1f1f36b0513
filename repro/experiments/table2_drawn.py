"""Table 2: what every reading of the paper's setting guarantees, and the noise an ε needs.

Command: ``repro table 2``. Cost and hardware: seconds on any machine; no runs, accounting only
(the numbers are computed in ``table2_privacy``). Expected: no reading reaches the ε = 6 that the
setting names; the documented noise gives 2,759 for a hospital's update over 50 rounds [calc].
"""

from __future__ import annotations

import functools

from repro.results.drawing import Sources
from repro.results.rows import empty_table, table_of_rows
from repro.results.table import Table

TITLE = "Table 2. Privacy: what each reading guarantees"
CAPTION = "Computed by the accountant; independent of data, profile and seeds."
LABELS = {
    "epsilon_round": "ε, one round",
    "epsilon_total": "ε, 50 rounds",
    "delta": "δ",
    "sigma": "σ",
    "sensitivity": "L2 sensitivity",
}


def build(sources: Sources) -> list[Table]:
    return list(_tables())


@functools.cache  # they depend on nothing
def _tables() -> tuple[Table, ...]:
    try:
        from repro.experiments import table2_privacy as numbers
    except ImportError:
        how = "the accountant is not available in this installation"
        return (empty_table("table2", TITLE, caption=CAPTION, how=how),)
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
