"""Figure 5: what accuracy an ε buys, for noise of each hospital's own, shared noise, and pooled.

Command: ``repro figure frontier``. Cost and hardware: seconds; the runs are Table 1's. Expected:
accuracy rises with ε; noise shared inside the secure sum lies above each hospital's own and near
pooled training; the paper's claim, drawn hollow at the ε = 6 it names, belongs at ∞ (no noise) or
in the thousands (documented noise), where accuracy is that of chance.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.comparison import local_epochs
from repro.report.evidence import Evidence
from repro.report.privacy import deltas
from repro.report.shown import runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, OKABE_ITO, new_figure, star
from repro.runs.arm import PRIVATE, Arm, Family
from repro.runs.guarantees import protected_unit, total_epsilon
from repro.runs.record import RunRecord

LEFT, RIGHT, INFINITY, END = 0.5, 2e4, 1.7e5, 1e6  # of the axis; where ∞ is drawn
# Where honest guarantees lie has most of the room: beyond ε = 10 a decade is a fifth as wide.
DENSE, SHARE = 10.0, 0.2


# Colour, marker, and is it filled? By an arm's trainer or scope where it promises a record an ε,
# else by its reading.
HIGH = 80  # per cent: a row of panels that lies above begins here
LOOKS = {
    "dpsgd": (OKABE_ITO["orange"], "^", True),
    "shared-dpsgd": (OKABE_ITO["blue"], "o", True),
    "pooled": (OKABE_ITO["green"], "o", False),  # a ring, round what it equals
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
    if arm.epsilon is None:
        return LOOKS[arm.reading]
    known = "pooled" if arm.scope == "pooled" else arm.trainer
    return LOOKS.get(known, FEATURES[place % len(FEATURES)])


def build(sources: Sources) -> Figure:
    evidence = sources.evidence
    counts = evidence.hospital_counts
    used, rows = runs_shown(evidence, "frontier"), charts()
    caption = (
        "Small points: one run each, last round; large: their mean. ε: total, from each run's "
        f"ledger, at δ = {' or '.join(deltas(used) or ['(none)'])}, for one record unless a label "
        "says hospital; the two are different promises. Rows differ in network and training "
        f"length: compare within a row. Beyond ε = {DENSE:g} the axis is compressed; runs at ∞ "
        "stand side by side. "
    )
    lowest = {heading: _lowest(evidence, curves) for heading, curves in rows.items()}
    if any(lowest.values()):
        caption += f"Accuracies that are all above {HIGH} % have an axis that begins there. "
    title = "Figure 5. Test accuracy against ε"
    figure = new_figure(12.6, 3.4 * len(rows) + 0.9, title, caption + evidence.caption(used))
    ratios = [*[1.0] * len(counts), 0.62]  # the last column names the curves of its row
    panels = figure.subplots(
        len(rows), len(counts) + 1, squeeze=False, gridspec_kw={"width_ratios": ratios}
    )
    for row, (heading, curves) in enumerate(rows.items()):
        for column, hospitals in enumerate(counts):
            axes = panels[row][column]
            axes.set_title(f"{heading}{_length(evidence, curves)}, {hospitals} hospitals")
            _axis(axes, lowest[heading])
            if column:
                axes.tick_params(labelleft=False)
            unlimited = [c for c in curves if protected_unit(c.arms[0].name) is None]
            middle = (len(unlimited) - 1) / 2
            for curve in curves:
                aside = unlimited.index(curve) - middle if curve in unlimited else 0.0
                _draw(axes, evidence, curve, hospitals, 10 ** (0.42 * aside))
            if row == 0:
                _claim(axes, sources, hospitals)
        panels[row][0].set_ylabel("test accuracy (%)")
        _names(panels[row][-1], panels[row][:-1])
    return figure


def _names(place: Axes, panels: Iterable[Axes]) -> None:
    """The curves of one row of panels, each once."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(textwrap.fill(label, 34), handle)
    place.axis("off")
    place.legend(list(handles.values()), list(handles), loc="center left", borderpad=0,
                 borderaxespad=0, labelspacing=0.9)  # fmt: skip


def _length(evidence: Evidence, curves: list[Curve]) -> str:
    lengths = {
        local_epochs(run)
        for curve in curves
        for arm in curve.arms
        if arm.trainer != "logistic"  # it has no length: it is solved to the end
        for run in evidence.all_runs(arm.name)
    }
    return f", {' or '.join(f'{length:g}' for length in sorted(lengths))} epochs" if lengths else ""


def _lowest(evidence: Evidence, curves: list[Curve]) -> int:
    """Where the axis of accuracies begins, per cent."""
    arms = [arm.name for curve in curves for arm in curve.arms]
    reached = [100 * run.final_accuracy for run in evidence.all_runs(*arms)]
    return HIGH if reached and min(reached) > HIGH else 0


def _axis(axes: Axes, lowest: int) -> None:
    axes.set_xscale("function", functions=(_squeezed, _unsqueezed))
    axes.set_xlim(LEFT, END)
    axes.set_ylim(lowest, 100 + 0.04 * (100 - lowest))
    ticks = [1, 2, 3, 6, 10, 100, 10000]
    axes.set_xticks([*ticks, INFINITY], [*(f"{tick:,}" for tick in ticks), "∞"])
    axes.set_xlabel("true ε (total; smaller is more private)")
    axes.axvspan(RIGHT * 1.5, END, color="#f0f0f0", zorder=0)
    axes.axvline(DENSE, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    words = axes.get_xaxis_transform()  # x in ε, y as a part of the axis
    middle = math.sqrt(RIGHT * 1.5 * END)
    axes.text(middle, 0.02, "no\nguarantee", ha="center", size=8, color=MUTED, transform=words)


def _squeezed(epsilon: Any) -> Any:
    """log₁₀ ε up to ``DENSE``, and beyond it a ``SHARE`` of that."""
    decades = np.log10(np.maximum(epsilon, 1e-9))
    return np.minimum(decades, np.log10(DENSE) + SHARE * (decades - np.log10(DENSE)))


def _unsqueezed(place: Any) -> Any:
    place, bend = np.asarray(place, dtype=float), np.log10(DENSE)
    return 10 ** np.maximum(place, bend + (place - bend) / SHARE)


def _place(run: RunRecord) -> float:
    unit = protected_unit(run.arm)
    spent = math.inf if unit is None else total_epsilon(run, unit)
    return min(spent, RIGHT) if math.isfinite(spent) else INFINITY


def _draw(axes: Axes, evidence: Evidence, curve: Curve, hospitals: int, aside: float) -> None:
    """aside: factor of the place at ∞, where several curves' points would hide each other."""
    means = []
    for arm in curve.arms:
        runs = evidence.runs(arm.name, hospitals)
        if not runs:
            continue
        x = max(map(_place, runs))
        x *= aside if x == INFINITY else 1.0
        values = [100 * run.final_accuracy for run in runs]
        axes.plot([x] * len(values), values, color=curve.color, marker=".", markersize=4,
                  linestyle="none", alpha=0.7)  # fmt: skip
        means.append((x, sum(values) / len(values)))
    ring = curve.marker == "o" and not curve.filled
    if means:
        axes.plot(*zip(*means, strict=True), color=curve.color, marker=curve.marker,
                  markersize=11 if ring else 7, markeredgewidth=1.8 if ring else 1.0,
                  markerfacecolor=curve.color if curve.filled else "white",
                  zorder=1.9 if ring else 2, linewidth=1, label=curve.label)  # fmt: skip


def _claim(axes: Axes, sources: Sources, hospitals: int) -> None:
    """The paper's point where it puts itself, and an arrow to where the accountant puts it."""
    claim = sources.claims.accuracy(PRIVATE, hospitals)
    if claim is None:
        return
    stated = float(sources.claims.get("epsilon").value)
    label = f"a claim, not a run: the paper, at the ε it names [{claim.source}]"
    star(axes, stated, claim.value, label=label, zorder=5)
    arrow = {"arrowstyle": "->", "color": INK, "lw": 1, "linestyle": (0, (4, 3))}
    head, tail = (RIGHT * 2, claim.value), (stated * 1.4, claim.value)
    axes.annotate("", xy=head, xytext=tail, arrowprops=arrow)
    said, place = "as most likely run:\nno noise, so ε = ∞", (stated * 1.45, claim.value - 2.2)
    axes.text(*place, said, ha="left", va="top", size=8, color=INK)
