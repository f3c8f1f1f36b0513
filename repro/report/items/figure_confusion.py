"""Figure 6: confusion matrices of the last round, with and without privacy.

Command: ``repro figure confusion``. Cost and hardware: seconds; the runs are Table 1's.
Expected: without noise nearly diagonal; with the documented noise one or two columns take all.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.shown import class_order, runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import new_figure, say_not_run
from repro.runs.record import RunRecord


def build(sources: Sources) -> Figure:
    evidence = sources.evidence
    counts = evidence.hospital_counts
    arms, used = shown("confusion"), runs_shown(evidence, "confusion")
    caption = (
        "Cells: per cent of the true class (row), last round; shares under 0.5 % are left blank. "
        "Each panel is one model, that of the lowest seed; Figure 7 has all seeds. Classes in "
        "Figure 7's order, most frequent first. "
    )
    title = "Figure 6. Confusion matrices on the test images"
    width = 3.1 * len(arms) + 1.0
    figure = new_figure(width, 3.7 * len(counts) + 0.6, title, caption + evidence.caption(used))
    panels = figure.subplots(len(counts), len(arms), squeeze=False)
    for row, hospitals in enumerate(counts):
        for column, (arm, name) in enumerate(arms):
            axes = panels[row][column]
            runs = evidence.runs(arm.name, hospitals)
            which = f", seed {runs[0].seed}" if runs else ""
            axes.set_title(f"{name}\n{hospitals} hospitals{which}", fontsize=9)
            if runs:
                _matrix(axes, percentages(runs[0]))
            else:
                say_not_run(axes)
            names = evidence.class_names
            if used:
                names = [names[i] for i in class_order(used[0])]
            _names(axes, names, left=column == 0, below=row == len(counts) - 1)
    return figure


def percentages(run: RunRecord) -> list[list[float]]:
    """The run's matrix, classes in order, each row (true class) scaled to 100."""
    order = class_order(run)
    rows = [[run.confusion[i][j] for j in order] for i in order]
    return [[100 * count / max(1, sum(row)) for count in row] for row in rows]


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
