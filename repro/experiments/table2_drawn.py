"""Table 2: what every reading of the paper's setting guarantees.

Command: ``repro table 2``. Cost and hardware: seconds on any machine; no runs, accounting only
(the numbers are computed in ``table2_privacy``). Expected: no reading reaches the ε = 6 that the
setting names; the documented noise gives 2,759 for a hospital's update over 50 rounds [calc].
"""

from __future__ import annotations

from repro.results.drawing import Sources
from repro.results.rows import empty_table, table_of_rows
from repro.results.table import Table

TITLE = "Table 2. Privacy: what each reading guarantees"
CAPTION = "Computed by the accountant; independent of data, profile and seeds."
LABELS = {
    "epsilon_round": "ε, one round",
    "epsilon_total": "ε, total",
    "delta": "δ",
    "sigma": "σ",
    "noise_multiplier": "noise multiplier",
}


def build(sources: Sources) -> list[Table]:
    try:
        from repro.experiments.table2_privacy import rows
    except ImportError:
        how = "the accountant is not available in this installation"
        return [empty_table("table2", TITLE, caption=CAPTION, how=how)]
    return [table_of_rows("table2", TITLE, rows(), caption=CAPTION, labels=LABELS)]
