"""Figure 10: the answer in one chart: the rows of README's table, seed by seed.

Command: ``repro figure answer``. Cost and hardware: seconds; the runs are Table 1's, and those of
longer training where there are any. Expected: noise that is added costs the paper's network most;
fixed random filters lose little, and more at ε = 1 than at 6.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.evidence import Evidence
from repro.report.front import front_rows, front_table
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, OKABE_ITO, by_hospitals, new_figure, note, star
from repro.runs.arm import PRIVATE
from repro.runs.record import RunRecord

ROW = 0.46  # inches of height of a row, whose label has two lines


def build(sources: Sources) -> Figure:
    counts = sources.evidence.hospital_counts
    labels = [f"{row['what']}\n{row['epsilon']}" for row in front_table(sources).rows]
    arms = [(arm.name, evidence) for arm, _, evidence in front_rows(sources)]
    title = "Figure 10. What was claimed, and what was measured"
    figure = new_figure(10.4, ROW * len(labels) + 1.9, title, _caption(sources, arms))
    panels = by_hospitals(figure, counts, "test accuracy (%)", sharey=True)
    for axes, hospitals in panels:
        axes.set_xlim(0, 103)
        _claim(axes, sources, hospitals)
        for place, (arm, evidence) in enumerate(arms, start=1):
            _row(axes, evidence, arm, hospitals, place)
        _majority(axes, sources.evidence)
    panels[0][0].set_yticks(range(len(labels)), labels, color=INK)
    panels[0][0].set_ylim(len(labels) - 0.4, -1.0)
    return figure


def _caption(sources: Sources, arms: list[tuple[str, Evidence]]) -> str:
    runs: dict[str, list[RunRecord]] = {}
    for arm, evidence in arms:
        runs.setdefault(evidence.profile, []).extend(evidence.all_runs(arm))
    data = sources.evidence.dataset_caption
    told = {evidence.profile: evidence.caption(runs[evidence.profile]) for _, evidence in arms}
    return (
        "Points: one run each (last round); bars: their mean. Star: the paper's claim, as stated, "
        "not run. Rows differ in model and in length of training; README's table says what "
        f"privacy costs each. {data}{''.join(text.removeprefix(data) for text in told.values())}"
    )


def _claim(axes: Axes, sources: Sources, hospitals: int) -> None:
    claim = sources.claims.accuracy(PRIVATE, hospitals)
    if claim is None:
        return
    star(axes, claim.value, 0)
    text, at = f"{claim.value:.2f} [{claim.source}]", (claim.value, 0)
    note(axes, text, at, (-10, 0), ha="right", va="center", size=8, color=MUTED)


def _row(axes: Axes, evidence: Evidence, arm: str, hospitals: int, place: int) -> None:
    values = [100 * run.final_accuracy for run in evidence.runs(arm, hospitals)]
    if not values:
        axes.text(1.5, place, "not run", va="center", size=8, color=MUTED, style="italic")
        return
    mean = sum(values) / len(values)
    axes.plot([mean, mean], [place - 0.34, place + 0.34], color=INK, linewidth=1.4)
    axes.plot(values, [place] * len(values), marker="o", markersize=5.5, linestyle="none",
              color=OKABE_ITO["blue"], markeredgecolor="white", markeredgewidth=0.6)  # fmt: skip
    left = mean > 60
    at, offset = (min(values) if left else max(values), place), (-8 if left else 8, 0)
    side = "right" if left else "left"
    note(axes, f"{mean:.1f}", at, offset, ha=side, va="center", size=8.5, color=INK)


def _majority(axes: Axes, evidence: Evidence) -> None:
    """A line at the accuracy of always guessing the commonest class."""
    if evidence.guessing is None:
        return
    level = 100 * evidence.guessing
    axes.axvline(level, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    axes.text(level + 1, -0.7, "always the commonest class", size=8, color=MUTED, va="center")
