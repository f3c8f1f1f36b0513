"""Table 5: DPResNet beside ResNet-9 and ResNet-18: parameters, work, receptive field.

Command: ``repro table 5``. Cost and hardware: seconds; no runs. Expected: DPResNet has 4,802,120
parameters and 0.64 billion multiply–adds for one 28×28 image [code, calc].
"""

from __future__ import annotations

from repro.report.sources import Sources
from repro.report.table import Table, empty_table, table_of_rows

TITLE = "Table 5. Models: size, work, receptive field"
CAPTION = (
    "Counted on the models for one 28×28×3 image and 8 classes; independent of data and seeds."
)


def build(sources: Sources) -> list[Table]:
    rows = (sources.side("models") or {}).get("rows")
    if rows is None:
        # Counting needs the models, hence torch: only here, and only when nobody has counted yet.
        try:
            from repro.models.compare import compare
        except ImportError:
            how = "the models cannot be compared in this installation"
            return [empty_table("table5", TITLE, caption=CAPTION, how=how)]
        rows = compare()
    return [table_of_rows("table5", TITLE, rows, caption=CAPTION)]
