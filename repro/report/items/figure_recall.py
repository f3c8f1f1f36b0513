"""Figure 7: recall of each class, with and without privacy: who pays for the noise?

Command: ``repro figure recall``. Cost and hardware: seconds; the runs are Table 1's. Expected:
honest record-level privacy costs small and hard classes more than large ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro.report.sources import Sources
from repro.report.statistics import Summary
from repro.report.style import MARKS, MUTED, legend_below, new_figure, say_not_run
from repro.runs.guarantees import promise
from repro.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARMS = (
    ("fedavg", "FedAvg"),
    ("clip-secagg", "clip, no noise"),
    *((arm, promise(arm)) for arm in ("dpsgd-eps6", "dpsgd-eps1")),
    ("scattering-fedavg", "scattering, FedAvg"),
    ("scattering-dpsgd-eps6", f"scattering, {promise('scattering-dpsgd-eps6')}"),
)


def build(sources: Sources) -> Figure:
    evidence = sources.evidence
    counts = evidence.hospital_counts
    used = [r for arm, _ in ARMS for k in counts for r in evidence.runs(arm, k)]
    caption = (
        "Mean over seeds, last round; bars: ± one standard deviation. Classes by their share of "
        "the test images, in brackets. "
    )
    title = "Figure 7. Per-class recall with and without privacy"
    figure = new_figure(10.2, 6.4, title, caption + evidence.caption(used))
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, hospitals in zip(panels, counts, strict=True):
        axes.set_title(f"{hospitals} hospitals")
        axes.set_xlabel("recall (%)")
        runs = {arm: evidence.runs(arm, hospitals) for arm, _ in ARMS}
        if any(runs.values()):
            _dots(axes, runs, evidence.class_names)
        else:
            say_not_run(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        legend_below(figure, handles, labels, 3)
    return figure


def recalls(run: RunRecord) -> list[float]:
    """Per class: right over all of that class; NaN where the test split has none."""
    return [row[i] / sum(row) if sum(row) else float("nan") for i, row in enumerate(run.confusion)]


def _dots(axes: Axes, runs: dict[str, list[RunRecord]], names: list[str]) -> None:
    some = next(r for arm in runs.values() for r in arm)
    sizes = [sum(row) for row in some.confusion]
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))  # rare classes at the bottom
    for index, (arm, label) in enumerate(ARMS):
        color, _, marker = MARKS[index]
        offset = 0.75 * (0.5 - (index + 0.5) / len(ARMS))
        columns = [recalls(run) for run in runs[arm]]
        summaries = [Summary.of([100 * c[i] for c in columns]) for i in order]
        if not columns:
            label += " (not run)"
        means = [s.mean if s else float("nan") for s in summaries]
        spreads = [(s.deviation or 0.0) if s else 0.0 for s in summaries]
        axes.errorbar(
            means,
            [place + offset for place in range(len(order))],
            xerr=spreads,
            color=color,
            marker=marker,
            linestyle="none",
            capsize=2,
            elinewidth=1,
            label=label,
        )
    for place in range(len(order) - 1):
        axes.axhline(place + 0.5, color=MUTED, linewidth=0.4, alpha=0.5)
    shares = [100 * size / sum(sizes) for size in sizes]  # alike in every subset of the images
    axes.set_yticks(range(len(order)), [f"{names[i]} ({shares[i]:.0f} %)" for i in order])
    axes.grid(False, axis="y")
    axes.set_xlim(-3, 103)
