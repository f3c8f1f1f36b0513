"""Curves against round, as both ``figure_accuracy`` and ``figure_loss`` draw them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from repro.report.evidence import Evidence
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, Mark, mark, new_figure, say_not_run, spread
from repro.runs.arms import EPSILONS
from repro.runs.guarantees import promise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Rows of panels: what belongs together. FedAvg comes back as the grey reference.
GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "no privacy, and the bounds",
        (
            ("fedavg", "FedAvg"),
            ("fedavg-secagg", "FedAvg + SecAgg"),
            ("central", "pooled data"),
            ("single", "one hospital"),
        ),
    ),
    (
        "three readings of “DP+ / SecAgg+”",
        (
            ("clip-secagg", "clip, no noise"),
            ("documented-secagg", "documented noise"),
            ("calibrated-secagg", promise("calibrated-secagg")),
        ),
    ),
    (
        "record-level DP-SGD, true total ε",
        tuple((f"dpsgd-eps{target:g}", f"ε = {target:g}") for target in reversed(EPSILONS)),
    ),
    (
        "scattering, other length",
        (
            ("scattering-fedavg", "no privacy"),
            *(
                (f"scattering-dpsgd-eps{target:g}", f"ε = {target:g}")
                for target in reversed(EPSILONS)
            ),
        ),
    ),
    (
        "scattering, noise shared",
        tuple(
            (f"scattering-shared-eps{target:g}", f"ε = {target:g}") for target in reversed(EPSILONS)
        ),
    ),
    (
        "second-order, noise shared",
        (
            ("public-newton-eps6", "public data, ε = 6"),
            ("public-newton-eps1", "public data, ε = 1"),
            ("random-newton-eps6", "random filters, ε = 6"),
            ("random-newton-eps1", "random filters, ε = 1"),
            ("scattering-newton-eps6", "scattering, ε = 6"),
        ),
    ),
)
REFERENCE = Mark("#9a9a9a", "-", "")
End = tuple[int | float, int | float, str, str]  # x, y, name, colour


def build_curves(
    sources: Sources,
    *,
    key: str,
    title: str,
    label: str,
    scale: float = 1.0,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Figure:
    """Small multiples: a row per group, a column per number of hospitals.

    key: of the history's entries; scale: factor from the record's unit to the axis' unit.
    """
    evidence = sources.evidence
    counts = evidence.hospital_counts
    names = [arm for _, arms in GROUPS for arm, _ in arms]
    used = [r for arm in names for k in counts for r in evidence.runs(arm, k)]
    caption = "Thick lines: mean over seeds; thin: each seed; not smoothed. Grey: FedAvg. "
    figure = new_figure(
        5.1 * len(counts), 2.9 * len(GROUPS), title, caption + evidence.caption(used)
    )
    panels = figure.subplots(len(GROUPS), len(counts), squeeze=False, sharey="row", sharex=True)
    ends = {}
    for row, (group, arms) in enumerate(GROUPS):
        for column, hospitals in enumerate(counts):
            axes = panels[row][column]
            axes.set_title(f"{hospitals} hospitals: {group}")
            ends[axes] = _panel(axes, evidence, arms, hospitals, key, scale)
            if column == 0:
                axes.set_ylabel(label)
            if row == len(GROUPS) - 1:
                axes.set_xlabel("round")
            if limits:
                axes.set_ylim(*limits)
            if log and ends[axes]:
                axes.set_yscale("log")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
    for axes, lines in ends.items():  # only now are the shared limits known
        _label_ends(axes, lines)
    return figure


def _panel(
    axes: Axes,
    evidence: Evidence,
    arms: tuple[tuple[str, str], ...],
    hospitals: int,
    key: str,
    scale: float,
) -> list[End]:
    """Draw the panel's arms; returns the ends of their lines, to be labelled."""
    ends: list[End] = []
    # The reference only beside runs that it may be compared with.
    if not arms[0][0].startswith(("fedavg", "scattering", "random", "public")):
        ends += _line(axes, evidence, "fedavg", "FedAvg", hospitals, key, scale, REFERENCE)
    for index, (arm, name) in enumerate(arms):
        ends += _line(axes, evidence, arm, name, hospitals, key, scale, mark(index))
    missing = [name for arm, name in arms if not evidence.runs(arm, hospitals)]
    if not ends:
        say_not_run(axes)
        return ends
    if missing:
        axes.text(0.02, 0.02, "not run: " + ", ".join(missing), transform=axes.transAxes,
                  color=MUTED, size=7.5, va="bottom")  # fmt: skip
    return ends


def _line(
    axes: Axes,
    evidence: Evidence,
    arm: str,
    name: str,
    hospitals: int,
    key: str,
    scale: float,
    look: Mark,
) -> list[End]:
    """Draw one arm; returns its line's end, or nothing when it was not run."""
    curves = [
        [(entry["round"], scale * entry[key]) for entry in run.history]
        for run in evidence.runs(arm, hospitals)
    ]
    if not curves:
        return []
    length = min(map(len, curves))
    rounds = [point[0] for point in curves[0][:length]]
    columns = [[curve[i][1] for curve in curves] for i in range(length)]
    means = [math.fsum(values) / len(values) for values in columns]
    axes.plot(rounds, means, color=look.color, linestyle=look.line, marker=look.marker,
              markevery=max(1, length // 8), label=name)  # fmt: skip
    if len(curves) > 1:
        for curve in curves:
            axes.plot(rounds, [point[1] for point in curve[:length]], color=look.color,
                      linewidth=0.7, alpha=0.45)  # fmt: skip
    finite = [(x, y) for x, y in zip(rounds, means, strict=True) if math.isfinite(y)]
    return [(*finite[-1], name, look.color)] if finite else []


def _label_ends(axes: Axes, ends: list[End]) -> None:
    """Names at the ends of the lines, moved apart where they would overlap."""
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for x, y, _, _ in ends]
    places = spread(heights, 0.085, 0.03, 0.98)
    for (x, y, name, color), place in zip(ends, places, strict=True):
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.06, place),
            textcoords="axes fraction",
            color=INK,
            size=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 1.2, "shrinkA": 1, "shrinkB": 3},
        )
