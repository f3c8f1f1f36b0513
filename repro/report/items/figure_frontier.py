"""Figure 5: what accuracy an ε buys, for noise of each hospital's own, shared noise, and pooled.

Command: ``repro figure frontier``. Cost and hardware: seconds; the runs are Table 1's. Expected:
accuracy rises with ε; noise shared inside the secure sum lies above each hospital's own and near
pooled training; the paper's claim, drawn hollow at the ε = 6 it names, belongs at ∞ (no noise) or
in the thousands (documented noise), where accuracy is that of chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from repro.formatting import small
from repro.report.comparison import local_epochs
from repro.report.evidence import Evidence
from repro.report.shown import runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, OKABE_ITO, legend_below, new_figure
from repro.runs.arm import PRIVATE, Arm, Family
from repro.runs.guarantees import protected_unit, total_epsilon
from repro.runs.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, RIGHT, INFINITY = 0.5, 2e4, 1e5  # of the axis; where ∞ is drawn, beyond its break


# Colour, marker, and is it filled? By an arm's trainer or scope where it promises a record an ε,
# else by its reading.
HIGH = 80  # per cent: a row of panels that lies above begins here
LOOKS = {
    "dpsgd": (OKABE_ITO["orange"], "^", True),
    "shared-dpsgd": (OKABE_ITO["blue"], "o", True),
    "pooled": (OKABE_ITO["green"], "X", True),
    "plain": (OKABE_ITO["black"], "D", True),
    "bound": (OKABE_ITO["black"], "X", True),
    "as most likely run": (OKABE_ITO["black"], "v", False),
    "as documented": (OKABE_ITO["vermilion"], "s", True),
    "honest": (OKABE_ITO["purple"], "s", False),
}
# Second-order arms differ in their features: by the place of the curve in its panel.
FEATURES = (
    (OKABE_ITO["sky"], "P", True),
    (OKABE_ITO["vermilion"], "v", True),
    (OKABE_ITO["blue"], "D", True),
    (OKABE_ITO["orange"], "^", True),
    (OKABE_ITO["green"], "X", True),
    (OKABE_ITO["purple"], "s", True),
)


@dataclass(frozen=True)
class Curve:
    """Arms that differ in ε alone, the most private first; of one arm, a point."""

    label: str
    arms: tuple[Arm, ...]
    color: str
    marker: str
    filled: bool


def charts() -> dict[str, list[Curve]]:
    """Rows of panels: heading → curves of one network and length, which alone may be compared.

    Those that promise a record an ε come first.
    """
    grouped: dict[str, dict[tuple[Family, str], list[Arm]]] = {}
    for arm, name in sorted(shown("frontier"), key=lambda one: one[0].epsilon is None):
        chart = grouped.setdefault(arm.chart, {})
        chart.setdefault((arm.family, name), []).insert(0, arm)
    return {
        heading: [
            Curve(name, tuple(arms), *_look(arms[0], place))
            for place, ((_, name), arms) in enumerate(curves.items())
        ]
        for heading, curves in grouped.items()
    }


def _look(arm: Arm, place: int) -> tuple[str, str, bool]:
    if arm.trainer == "shared-newton":
        return FEATURES[place % len(FEATURES)]
    if arm.epsilon is None:
        return LOOKS[arm.reading]
    return LOOKS["pooled" if arm.scope == "pooled" else arm.trainer]


def build(sources: Sources) -> Figure:
    evidence = sources.evidence
    counts = evidence.hospital_counts
    used, rows = runs_shown(evidence, "frontier"), charts()
    caption = (
        "Small points: one run each, last round; large: their mean. ε: total, from each run's "
        f"ledger, at δ = {' or '.join(_deltas(used))}, for one record unless a label says "
        "hospital; the two are different promises. Rows differ in network and training length: "
        "compare within a row. "
    )
    lowest = {heading: _lowest(evidence, curves) for heading, curves in rows.items()}
    if any(lowest.values()):
        caption += f"Accuracies that are all above {HIGH} % have an axis that begins there. "
    title = "Figure 5. Test accuracy against ε"
    figure = new_figure(10.6, 3.5 * len(rows) + 1.6, title, caption + evidence.caption(used))
    panels = figure.subplots(len(rows), len(counts), squeeze=False, sharey="row")
    for row, (heading, curves) in enumerate(rows.items()):
        for column, hospitals in enumerate(counts):
            axes = panels[row][column]
            axes.set_title(f"{heading}{_length(evidence, curves)}, {hospitals} hospitals")
            _axis(axes, lowest[heading])
            for curve in curves:
                _draw(axes, evidence, curve, hospitals)
            if row == 0:
                _claim(axes, sources, hospitals)
        panels[row][0].set_ylabel("test accuracy (%)")
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    legend_below(figure, list(handles.values()), list(handles), 3)
    return figure


def _deltas(used: list[RunRecord]) -> list[str]:
    found = {float(row["delta"]) for run in used for row in run.privacy if row.get("delta")}
    return [small(delta) for delta in sorted(found)] or ["(none)"]


def _length(evidence: Evidence, curves: list[Curve]) -> str:
    lengths = {
        local_epochs(run)
        for curve in curves
        for arm in curve.arms
        if arm.trainer != "logistic"  # it has no length: it is solved to the end
        for k in evidence.hospital_counts
        for run in evidence.runs(arm.name, k)
    }
    return f", {' or '.join(f'{length:g}' for length in sorted(lengths))} epochs" if lengths else ""


def _lowest(evidence: Evidence, curves: list[Curve]) -> int:
    """Where the axis of accuracies begins, per cent."""
    reached = [
        100 * run.final_accuracy
        for curve in curves
        for arm in curve.arms
        for k in evidence.hospital_counts
        for run in evidence.runs(arm.name, k)
    ]
    return HIGH if reached and min(reached) > HIGH else 0


def _axis(axes: Axes, lowest: int) -> None:
    axes.set_xscale("log")
    axes.set_xlim(LEFT, 3.2 * INFINITY)
    axes.set_ylim(lowest, 100 + 0.04 * (100 - lowest))
    ticks = [1, 3, 6, 10, 100, 1000, 10000]
    axes.set_xticks([*ticks, INFINITY], [*(f"{tick:,}" for tick in ticks), "∞"])
    axes.minorticks_off()
    axes.set_xlabel("true ε (total; smaller is more private)")
    axes.axvspan(RIGHT * 1.5, 3.2 * INFINITY, color="#f0f0f0", zorder=0)
    words = axes.get_xaxis_transform()  # x in ε, y as a part of the axis
    axes.text(INFINITY, 0.02, "no guarantee", ha="center", size=8, color=MUTED, transform=words)


def _place(run: RunRecord) -> float:
    unit = protected_unit(run.arm)
    spent = math.inf if unit is None else total_epsilon(run, unit)
    return min(spent, RIGHT) if math.isfinite(spent) else INFINITY


def _draw(axes: Axes, evidence: Evidence, curve: Curve, hospitals: int) -> None:
    means = []
    for arm in curve.arms:
        runs = evidence.runs(arm.name, hospitals)
        if not runs:
            continue
        x = max(map(_place, runs))
        values = [100 * run.final_accuracy for run in runs]
        axes.plot([x] * len(values), values, color=curve.color, marker=".", markersize=4,
                  linestyle="none", alpha=0.7)  # fmt: skip
        means.append((x, sum(values) / len(values)))
    if means:
        axes.plot(
            [x for x, _ in means],
            [y for _, y in means],
            color=curve.color,
            marker=curve.marker,
            markersize=7,
            markerfacecolor=curve.color if curve.filled else "white",
            linewidth=1,
            label=curve.label,
        )


def _claim(axes: Axes, sources: Sources, hospitals: int) -> None:
    """The paper's point where it puts itself, and an arrow to where the accountant puts it."""
    claim = sources.claims.accuracy(PRIVATE, hospitals)
    if claim is None:
        return
    stated = float(sources.claims.get("epsilon").value)
    axes.plot(
        [stated],
        [claim.value],
        marker="*",
        markersize=13,
        markerfacecolor="white",
        markeredgecolor=INK,
        linestyle="none",
        label=f"a claim, not a run: the paper, at the ε it names [{claim.source}]",
        zorder=5,
    )
    axes.annotate(
        "",
        xy=(INFINITY / 2.2, claim.value),
        xytext=(stated * 1.4, claim.value),
        arrowprops={"arrowstyle": "->", "color": INK, "lw": 1, "linestyle": (0, (4, 3))},
    )
    axes.text(
        math.sqrt(stated * RIGHT),
        claim.value - 2.2,
        "as most likely run: no noise, so ε = ∞",
        ha="center",
        va="top",
        size=8,
        color=INK,
    )
