"""Figures 6 and 7: what each class is taken for, and how many of it are found."""

from __future__ import annotations

from math import nan
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.clinical import recalls
from repro.report.shown import class_order, runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import MARKS, MUTED, by_hospitals, legend_below, new_figure, say_not_run
from repro.runs.record import RunRecord


def build_confusion(sources: Sources) -> Figure:
    """Figure 6: confusion matrices of the last round, with and without privacy.

    Command: ``repro figure confusion``. Cost and hardware: seconds; the runs are Table 1's.
    Expected: without noise nearly diagonal; with the documented noise one or two columns take all.
    """
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


def build_recall(sources: Sources) -> Figure:
    """Figure 7: recall of each class, with and without privacy: who pays for the noise?

    Command: ``repro figure recall``. Cost and hardware: seconds; the runs are Table 1's. Expected:
    honest record-level privacy costs small and hard classes more than large ones.
    """
    evidence = sources.evidence
    counts = evidence.hospital_counts
    arms, used = shown("recall"), runs_shown(evidence, "recall")
    caption = (
        "Markers: mean over seeds, last round; ticks: each seed. The models trained for "
        "different lengths: compare within one. Classes by their share of "
        "the test images, in brackets. "
    )
    title = "Figure 7. Per-class recall with and without privacy"
    figure = new_figure(10.2, 6.4, title, caption + evidence.caption(used))
    panels = by_hospitals(figure, counts, "recall (%)", sharey=True)
    for axes, hospitals in panels:
        runs = {name: evidence.runs(arm.name, hospitals) for arm, name in arms}
        if any(runs.values()):
            _dots(axes, runs, evidence.class_names)
        else:
            say_not_run(axes)
    handles, labels = panels[0][0].get_legend_handles_labels()
    if handles:
        legend_below(figure, handles, labels, 3)
    return figure


def _dots(axes: Axes, runs: dict[str, list[RunRecord]], names: list[str]) -> None:
    some = next(run for its in runs.values() for run in its)
    sizes = [sum(row) for row in some.confusion]
    order = class_order(some)[::-1]  # upwards: rare classes at the bottom
    for index, (label, its) in enumerate(runs.items()):
        color, _, marker = MARKS[index]
        offset = 0.75 * (0.5 - (index + 0.5) / len(runs))
        columns = [recalls(run.confusion) for run in its]
        if not columns:
            label += " (not run)"
        means = [sum(c[i] for c in columns) / len(columns) if columns else nan for i in order]
        heights = [place + offset for place in range(len(order))]
        axes.plot([100 * mean for mean in means], heights, color=color, marker=marker,
                  linestyle="none", label=label)  # fmt: skip
        for column in columns:
            axes.plot([100 * column[i] for i in order], heights, color=color, marker="|",
                      markersize=6, linestyle="none", alpha=0.8)  # fmt: skip
    for place in range(len(order) - 1):
        axes.axhline(place + 0.5, color=MUTED, linewidth=0.4, alpha=0.5)
    shares = [100 * size / sum(sizes) for size in sizes]  # alike in every subset of the images
    axes.set_yticks(range(len(order)), [f"{names[i]} ({shares[i]:.0f} %)" for i in order])
    axes.grid(False, axis="y")
    axes.set_xlim(-3, 103)
