"""Figure 8: ε against round under every reading, and the noise that a total ε needs.

Command: ``repro figure epsilon``. Cost and hardware: seconds; no runs, exact accounting only.
Expected: every reading of the documented noise passes ε = 6 by the second round; a true total of 6
over 50 rounds needs σ = 32.8 where the documentation has 0.699 [calc].
"""

from __future__ import annotations

import functools
import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.accounting.calibration import calibrate_noise_multiplier
from repro.accounting.gaussian import gaussian_epsilon, gaussian_sigma
from repro.report.items.table2_privacy import CLIP_NORM, DELTA, EPSILON, LOCAL_EPOCHS, ROUNDS, SIGMA
from repro.report.sources import Sources
from repro.report.style import MUTED, label_ends, mark, new_figure

#: label → (sensitivity, hospitals whose noise adds up).
READINGS = {
    "nominal (sensitivity 1)": (1.0, 1),
    "add or remove an update": (CLIP_NORM, 1),
    "replace an update": (2 * CLIP_NORM, 1),
    "secure sum of 10, add or remove": (CLIP_NORM, 10),
    "secure sum of 10, replace": (2 * CLIP_NORM, 10),
    "secure sum of 20, add or remove": (CLIP_NORM, 20),
    "secure sum of 20, replace": (2 * CLIP_NORM, 20),
}

TARGETS = tuple(0.5 * 1.25**i for i in range(18))  # ε from 0.5 to 22

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
    curves = series()
    for name in PANELS:
        _panel(axes[name], curves[name])
    return figure


def _panel(axes: Axes, panel: dict[str, Any]) -> None:
    axes.set(**panel["axes"])
    lines = [line for line in panel["lines"] if not _left_to_the_table(line["label"])]
    ends = []
    for index, line in enumerate(lines):
        look = mark(LOOKS.index(line["label"]) if line["label"] in LOOKS else index)
        axes.plot(line["x"], line["y"], color=look.color, linestyle=look.line, marker=look.marker,
                  markevery=max(1, len(line["x"]) // 7), markersize=4)  # fmt: skip
        ends.append((line["x"][-1], line["y"][-1], line["label"], look.color))
    for reference in panel["references"]:
        axes.axhline(reference["y"], color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)))
        ends.append((lines[0]["x"][-1], reference["y"], reference["label"], MUTED))
    if axes.get_xscale() == "log":
        ticks = [tick for tick in (0.5, 1, 3, 6, 10, 20) if tick <= max(lines[0]["x"])]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set_xlim(min(lines[0]["x"]), max(lines[0]["x"]))
    axes.yaxis.set_major_formatter("{x:,g}")
    label_ends(axes, ends, gap=0.075, low=0.02, beside=1.045, at_edge=True, shrinkB=1)


def _left_to_the_table(label: str) -> bool:
    return "sum" in label and "replace" in label


@functools.cache  # they depend on nothing
def series() -> dict[str, dict[str, Any]]:
    """Three panels: name → settings of the axes, lines (label, x, y) and reference lines."""
    return {
        "epsilon_against_rounds": {
            "axes": {
                "title": f"ε of the documented noise, σ = {SIGMA:.3f}, δ = {DELTA:g}",
                "xlabel": "rounds",
                "ylabel": "ε (one hospital's update)",
                "yscale": "log",
            },
            "lines": epsilon_against_rounds(),
            "references": [{"label": f"ε = {EPSILON:g}, as set", "y": EPSILON}],
        },
        "noise_against_epsilon": {
            "axes": {
                "title": f"σ each hospital must add, total over {ROUNDS} rounds",
                "xlabel": "total ε",
                "ylabel": "σ per parameter",
                "xscale": "log",
                "yscale": "log",
            },
            "lines": noise_against_epsilon(),
            "references": [{"label": f"σ = {SIGMA:.3f}, as set", "y": SIGMA}],
        },
        "multiplier_against_epsilon": {
            "axes": {
                "title": f"DP-SGD inside a hospital, {LOCAL_EPOCHS} local epochs",
                "xlabel": "total ε per record",
                "ylabel": "noise multiplier",
                "xscale": "log",
                "yscale": "log",
            },
            "lines": multiplier_against_epsilon(),
            "references": [],
        },
    }


def epsilon_against_rounds() -> list[dict[str, Any]]:
    """ε after 1 … 50 rounds for each reading, and the claimed ε added up."""
    x = list(range(1, ROUNDS + 1))
    lines = {
        label: [gaussian_epsilon(SIGMA * math.sqrt(k), change, t, DELTA) for t in x]
        for label, (change, k) in READINGS.items()
    } | {f"{EPSILON:g} a round, added up": [EPSILON * t for t in x]}
    return [{"label": label, "x": x, "y": y} for label, y in lines.items()]


def noise_against_epsilon() -> list[dict[str, Any]]:
    """σ each hospital must add for a total ε over 50 rounds, for each honest reading."""
    return [
        {
            "label": label,
            "x": list(TARGETS),
            "y": [gaussian_sigma(e, change, ROUNDS, DELTA) / math.sqrt(k) for e in TARGETS],
        }
        for label, (change, k) in READINGS.items()
        if change != 1.0
    ]


def multiplier_against_epsilon() -> list[dict[str, Any]]:
    """Noise multiplier of DP-SGD against its total ε, for the mean hospital of ten and twenty."""
    lines = []
    for images, batch in ((956, 32), (956, 128), (478, 32)):
        steps = LOCAL_EPOCHS * images // batch
        y = [calibrate_noise_multiplier(e, DELTA, batch / images, steps)[0] for e in TARGETS]
        lines.append({"label": f"{images} images, batch {batch}", "x": list(TARGETS), "y": y})
    return lines
