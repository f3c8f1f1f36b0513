"""Figure 7: recall of each class, with and without privacy: who pays for the noise?

Command: ``repro figure recall``. Cost and hardware: seconds; the runs are Table 1's. Expected:
honest record-level privacy costs small and hard classes more than large ones.
"""

from __future__ import annotations

from math import nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.clinical import recalls
from repro.report.shown import class_order, runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import MARKS, MUTED, legend_below, new_figure, say_not_run
from repro.runs.record import RunRecord


def build(sources: Sources) -> Figure:
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
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, hospitals in zip(panels, counts, strict=True):
        axes.set_title(f"{hospitals} hospitals")
        axes.set_xlabel("recall (%)")
        runs = {name: evidence.runs(arm.name, hospitals) for arm, name in arms}
        if any(runs.values()):
            _dots(axes, runs, evidence.class_names)
        else:
            say_not_run(axes)
    handles, labels = panels[0].get_legend_handles_labels()
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
