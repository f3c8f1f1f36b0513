"""Figures 3 and 4: curves of accuracy and of loss against round, per arm."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from repro.report.evidence import Evidence
from repro.report.shown import runs_shown, shown
from repro.report.sources import Sources
from repro.report.style import End, Mark, label_ends, mark, new_figure, say_missing, say_not_run
from repro.runs.arm import Arm
from repro.runs.arms import ARMS, FEDAVG

REFERENCE = Mark("#9a9a9a", "-", "")
HIGH, HIGH_FROM = 70, 60  # per cent


def panels_of_arms() -> dict[str, list[tuple[Arm, str]]]:
    """Rows of panels: heading → arms and their names, which belong together.

    Families that share a row from the last, whose curves end highest, as their names then do.
    """
    rows: dict[str, list[tuple[Arm, str]]] = {}
    arms = shown("curves")
    for arm, name in arms:
        rows.setdefault(arm.panel, []).append((arm, name))
    families = list(dict.fromkeys(arm.family for arm, _ in arms))
    return {
        heading: sorted(row, key=lambda one: -families.index(one[0].family))
        for heading, row in rows.items()
    }


def build_accuracy(sources: Sources) -> Figure:
    """Figure 3: test accuracy against round, per arm and number of hospitals.

    Command: ``repro figure accuracy``. Cost and hardware: seconds; the runs are Table 1's.
    Expected: FedAvg with and without secure aggregation lie on each other; clipping without noise
    stays close; the documented noise falls to the majority class within the first round.
    """
    return _curves(
        sources,
        key="accuracy",
        title="Figure 3. Test accuracy against round",
        label="test accuracy (%)",
        scale=100.0,
        limits=(0.0, 100.0),
    )


def build_loss(sources: Sources) -> Figure:
    """Figure 4: test loss against round, per arm and number of hospitals.

    Command: ``repro figure loss``. Cost and hardware: seconds; the runs are Table 1's.
    Expected: falls with accuracy's rise; the documented noise makes it explode, hence the log axis.
    """
    return _curves(
        sources,
        key="loss",
        title="Figure 4. Test loss against round",
        label="test cross-entropy (nats)",
        log=True,
    )


def _curves(
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
    used, groups = runs_shown(evidence, "curves"), panels_of_arms()
    caption = "Thick lines: mean over seeds; thin: each seed; not smoothed. Grey: FedAvg. "
    if any(run.settings.get("second_order") for run in used):
        caption += (
            "Second-order arms stand still in rounds 1 and 2, which sum the images' mean and "
            "second moments for whitening; steps begin in round 3. "
        )
    high = _high(evidence, groups) if limits else set()
    if high:
        caption += f"Rows whose curves all end above {HIGH} % begin at {HIGH_FROM} %. "
    figure = new_figure(
        5.1 * len(counts), 2.9 * len(groups), title, caption + evidence.caption(used)
    )
    panels = figure.subplots(len(groups), len(counts), squeeze=False, sharey="row", sharex=True)
    ends = {}
    for row, (group, arms) in enumerate(groups.items()):
        for column, hospitals in enumerate(counts):
            axes = panels[row][column]
            axes.set_title(f"{hospitals} hospitals: {group}")
            ends[axes] = _panel(axes, evidence, arms, hospitals, key, scale)
            if column == 0:
                axes.set_ylabel(label)
            if row == len(groups) - 1:
                axes.set_xlabel("round")
            if limits:
                axes.set_ylim(HIGH_FROM if group in high else limits[0], limits[1])
            if log and ends[axes]:
                axes.set_yscale("log")
    for axes, lines in ends.items():  # only now are the shared limits known
        if log and lines:
            _ticks(axes)
        label_ends(axes, lines, relpos=(0.0, 0.5))  # to the name's beginning: through no other
    return figure


def _high(evidence: Evidence, groups: dict[str, list[tuple[Arm, str]]]) -> set[str]:
    """The rows whose every run ends with an accuracy above ``HIGH``."""
    found = {name: evidence.all_runs(*(arm.name for arm, _ in its)) for name, its in groups.items()}
    finals = {name: [100 * run.final_accuracy for run in runs] for name, runs in found.items()}
    return {name for name, reached in finals.items() if reached and min(reached) > HIGH}


def _ticks(axes: Axes) -> None:
    """Numbers on a logarithmic axis as close as they can be read: 1.2, 1.4 …, 1, 2, 5 or 1, 10."""
    low, high = axes.get_ylim()
    close, some = (1.2, 1.4, 1.6, 1.8, 2, 3, 4, 6, 8), (2, 5)
    between = close if high / low < 3 else some if high / low < 100 else ()
    axes.yaxis.set_major_locator(LogLocator(subs=(1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(LogLocator(subs=between or (2, 5)))
    axes.yaxis.set_minor_formatter("{x:g}" if between else NullFormatter())


def _panel(
    axes: Axes,
    evidence: Evidence,
    arms: list[tuple[Arm, str]],
    hospitals: int,
    key: str,
    scale: float,
) -> list[End]:
    """Draw the panel's arms; returns the ends of their lines, to be labelled."""
    ends: list[End] = []
    # The reference only beside runs that it may be compared with.
    reference = ARMS[FEDAVG]
    if arms[0][0].family == reference.family and reference not in dict(arms):
        name = reference.presentation.names["curves"]
        ends += _line(axes, evidence, reference, name, hospitals, key, scale, REFERENCE)
    for index, (arm, name) in enumerate(arms):
        ends += _line(axes, evidence, arm, name, hospitals, key, scale, mark(index))
    missing = [name for arm, name in arms if not evidence.runs(arm.name, hospitals)]
    if not ends:
        say_not_run(axes)
        return ends
    say_missing(axes, missing, between=", ")
    return ends


def _line(
    axes: Axes,
    evidence: Evidence,
    arm: Arm,
    name: str,
    hospitals: int,
    key: str,
    scale: float,
    look: Mark,
) -> list[End]:
    """Draw one arm; returns its line's end, or nothing when it was not run."""
    curves = [
        [(entry["round"], scale * entry[key]) for entry in run.history]
        for run in evidence.runs(arm.name, hospitals)
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
