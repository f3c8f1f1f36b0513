"""Figure 10: the answer in one chart: accuracy of every reading, seed by seed, model by model.

Command: ``repro figure answer``. Cost and hardware: seconds; the runs are Table 1's. Expected:
clipping alone on top of FedAvg, the documented noise and an honest ε for a hospital at the
majority class; shared noise costs less than each hospital's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro.report.comparison import local_epochs
from repro.report.evidence import Evidence
from repro.report.shown import runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, OKABE_ITO, new_figure
from repro.runs.arm import PRIVATE
from repro.runs.arms import ARMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, BAND = 0.26, 0.34  # inches of height of a row and of a group's heading


def build(sources: Sources) -> Figure:
    evidence = sources.evidence
    counts = evidence.hospital_counts
    places, headings = _layout(evidence)
    used = runs_shown(evidence, "answer")
    caption = (
        "Filled points: one run each (last round); bars: their mean. Star: the paper's claim, as "
        "stated, not run. Rows under one heading trained equally long; rows of different headings "
        "did not, and compare only within their own. ε = 6, see the table for δ and unit. "
    )
    height = ROW * len(places) + BAND * len(headings) + 1.6
    title = "Figure 10. Test accuracy of every reading"
    figure = new_figure(10.4, height, title, caption + evidence.caption(used))
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, hospitals in zip(panels, counts, strict=True):
        axes.set_title(f"{hospitals} hospitals")
        axes.set_xlabel("test accuracy (%)")
        axes.set_xlim(0, 103)
        _claim(axes, sources, hospitals, places)
        for arm, place in places.items():
            if arm != PRIVATE:
                _row(axes, evidence, arm, hospitals, place)
        _majority(axes, evidence)
        for place in headings.values():
            axes.axhspan(place - 0.45, place + 0.45, color="#eef1f4", zorder=0)
    first = panels[0]
    labels = {PRIVATE: f"{PRIVATE}, as claimed"} | {arm.name: what for arm, what in shown("answer")}
    first.set_yticks(list(places.values()), [labels[arm] for arm in places], color=INK)
    # Over their bands and on into the next panel, so that the panels keep their width.
    first.set_zorder(2)
    first.patch.set_visible(False)
    for heading, place in headings.items():
        text = first.text(1, place, heading, va="center", size=8.5, weight="bold", color=INK)
        text.set_in_layout(False)
    first.set_ylim(max(places.values()) + 0.7, -1.4)
    return figure


def _layout(evidence: Evidence) -> tuple[dict[str, float], dict[str, float]]:
    """Where each arm's row and each group's heading stand, from the top down."""
    places: dict[str, float] = {}
    headings: dict[str, float] = {"the paper's claim": 0.0}
    places[PRIVATE] = 1.0
    group, at = "", 2.0
    for arm, _ in shown("answer"):
        if arm.family.heading != group:
            group = arm.family.heading
            headings[f"{group}{_length(evidence, group)}"] = at
            at += 1
        places[arm.name] = at
        at += 1
    return places, headings


def _length(evidence: Evidence, group: str) -> str:
    runs = [run for run in runs_shown(evidence, "answer") if ARMS[run.arm].family.heading == group]
    if not runs:
        return " (not run)"
    width = runs[0].model.get("width")
    wide = f", width {width}" if runs[0].model.get("name") == "dpresnet" else ""
    return f"{wide}, {local_epochs(runs[0]):g} epochs"


def _claim(axes: Axes, sources: Sources, hospitals: int, places: dict[str, float]) -> None:
    claim = sources.claims.accuracy(PRIVATE, hospitals)
    if claim is None:
        return
    look: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": "none"}
    look |= {"markerfacecolor": "white", "markeredgecolor": INK}
    axes.plot([claim.value], [places[PRIVATE]], **look)
    axes.annotate(
        f"{claim.value:.2f} [{claim.source}]",
        (claim.value, places[PRIVATE]),
        xytext=(-10, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        size=8,
        color=MUTED,
    )


def _row(axes: Axes, evidence: Evidence, arm: str, hospitals: int, place: float) -> None:
    values = [100 * run.final_accuracy for run in evidence.runs(arm, hospitals)]
    if not values:
        axes.text(1.5, place, "not run", va="center", size=8, color=MUTED, style="italic")
        return
    mean = sum(values) / len(values)
    axes.plot([mean, mean], [place - 0.34, place + 0.34], color=INK, linewidth=1.4)
    axes.plot(
        values,
        [place] * len(values),
        marker="o",
        markersize=5.5,
        linestyle="none",
        color=OKABE_ITO["blue"],
        markeredgecolor="white",
        markeredgewidth=0.6,
    )
    left = mean > 60
    axes.annotate(
        f"{mean:.1f}",
        (min(values) if left else max(values), place),
        xytext=(-8 if left else 8, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        size=8.5,
        color=INK,
    )


def _majority(axes: Axes, evidence: Evidence) -> None:
    """A line at the accuracy of always guessing the commonest class."""
    if not evidence.records:
        return
    images = max(([sum(row) for row in run.confusion] for run in evidence.records), key=sum)
    level = 100 * max(images) / sum(images)
    axes.axvline(level, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    axes.text(level + 1, -0.95, "always the commonest class", size=8, color=MUTED, va="center")
