"""Figure 6: confusion matrices of the last round, with and without privacy.

Command: ``repro figure confusion``. Cost and hardware: seconds; the runs are Table 1's.
Expected: without noise nearly diagonal; with the documented noise one or two columns take all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro.report.shown import runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import new_figure, say_not_run
from repro.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def build(sources: Sources) -> Figure:
    evidence = sources.evidence
    counts = evidence.hospital_counts
    arms, used = shown("confusion"), runs_shown(evidence, "confusion")
    caption = (
        "Cells: per cent of the true class (row), summed over seeds, last round; shares under "
        "0.5 % are left blank. "
    )
    title = "Figure 6. Confusion matrices on the test images"
    figure = new_figure(13.6, 4.05 * len(counts), title, caption + evidence.caption(used))
    panels = figure.subplots(len(counts), len(arms), squeeze=False)
    for row, hospitals in enumerate(counts):
        for column, (arm, name) in enumerate(arms):
            axes = panels[row][column]
            axes.set_title(f"{name}, {hospitals} hospitals", fontsize=9)
            runs = evidence.runs(arm.name, hospitals)
            if runs:
                _matrix(axes, percentages(runs))
            else:
                say_not_run(axes)
            _names(axes, evidence.class_names, left=column == 0, below=row == len(counts) - 1)
    return figure


def percentages(runs: list[RunRecord]) -> list[list[float]]:
    """The runs' matrices added, each row (true class) then scaled to 100."""
    size = len(runs[0].confusion)
    total = [[sum(r.confusion[i][j] for r in runs) for j in range(size)] for i in range(size)]
    return [[100 * count / max(1, sum(row)) for count in row] for row in total]


def _matrix(axes: Axes, rows: list[list[float]]) -> Any:
    axes.imshow(rows, cmap="Blues", vmin=0, vmax=100)
    axes.grid(False)
    for y, row in enumerate(rows):
        for x, share in enumerate(row):
            if share >= 0.5:
                color = "white" if share > 55 else "black"
                axes.text(x, y, f"{share:.0f}", ha="center", va="center", size=7, color=color)


def _names(axes: Axes, names: list[str], *, left: bool, below: bool) -> None:
    places = range(len(names))
    axes.set_yticks(places, names if left else [""] * len(names))
    axes.set_xticks(places, names if below else [""] * len(names))
    if below:
        axes.tick_params(axis="x", rotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
        axes.set_xlabel("predicted")
    if left:
        axes.set_ylabel("true")
    axes.tick_params(length=0)
