"""Figure 8: ε against round under every reading, and the noise that a total ε needs.

Command: ``repro figure epsilon``. Cost and hardware: seconds; no runs, exact accounting only
(the curves are computed in ``figure_privacy``). Expected: every reading of the documented noise
passes ε = 6 by the second round; a true total of 6 over 50 rounds needs σ = 32.8 where the
documentation has 0.699 [calc].
"""

from __future__ import annotations

import functools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.items.figure_privacy import series
from repro.report.items.table2_privacy import CLIP_NORM, EPSILON
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, mark, new_figure, spread

PANELS = ("epsilon_against_rounds", "noise_against_epsilon", "multiplier_against_epsilon")
# In the same look wherever they appear; the secure sums' replace lines stand in Table 2.
LOOKS = (
    "add or remove an update",
    "replace an update",
    "secure sum of 10, add or remove",
    "secure sum of 20, add or remove",
    "nominal (sensitivity 1)",
    f"{EPSILON:g} a round, added up",
)


def build(sources: Sources) -> Figure:
    caption = (
        f"Exact Gaussian accounting of a hospital's update (clip norm {CLIP_NORM:g}, full "
        "participation); Rényi accounting of DP-SGD with Poisson sampling. Independent of data, "
        "profile and seeds."
    )
    title = "Figure 8. ε against round, and the noise an ε needs"
    figure = new_figure(11.4, 8.4, title, caption)
    axes = figure.subplot_mosaic([[PANELS[0], PANELS[0]], list(PANELS[1:])])
    curves = _curves()
    for name in PANELS:
        _panel(axes[name], curves[name])
    return figure


@functools.cache  # they depend on nothing
def _curves() -> dict[str, dict[str, Any]]:
    return series()


def _panel(axes: Axes, panel: dict[str, Any]) -> None:
    axes.set_title(panel["title"])
    axes.set(xlabel=panel["x_label"], ylabel=panel["y_label"])
    axes.set_xscale(panel.get("x_scale", "linear"))
    axes.set_yscale(panel.get("y_scale", "linear"))
    lines = [line for line in panel["lines"] if not _left_to_the_table(line["label"])]
    ends = []
    for index, line in enumerate(lines):
        look = mark(LOOKS.index(line["label"]) if line["label"] in LOOKS else index)
        axes.plot(
            line["x"],
            line["y"],
            color=look.color,
            linestyle=look.line,
            marker=look.marker,
            markevery=max(1, len(line["x"]) // 7),
            markersize=4,
        )
        ends.append((line["x"][-1], line["y"][-1], line["label"], look.color))
    for reference in panel["references"]:
        axes.axhline(reference["y"], color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)))
        ends.append((lines[0]["x"][-1], reference["y"], reference["label"], MUTED))
    if panel.get("x_scale") == "log":
        ticks = [tick for tick in (0.5, 1, 3, 6, 10, 20) if tick <= max(lines[0]["x"])]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set_xlim(min(lines[0]["x"]), max(lines[0]["x"]))
    axes.yaxis.set_major_formatter("{x:,g}")
    _label_ends(axes, ends)


def _left_to_the_table(label: str) -> bool:
    return "sum" in label and "replace" in label


def _label_ends(axes: Axes, ends: list[tuple[Any, Any, str, str]]) -> None:
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for x, y, _, _ in ends]
    for (_, _, name, color), height, place in zip(
        ends, heights, spread(heights, 0.075, 0.02, 0.98), strict=True
    ):
        axes.annotate(
            name,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(1.045, place),
            textcoords="axes fraction",
            size=8,
            color=INK,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 1.2, "shrinkA": 1, "shrinkB": 1},
        )
