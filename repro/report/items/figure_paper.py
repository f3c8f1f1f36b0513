"""Figure 11: the paper's own setting, round by round, with the paper's end points as claims.

Command: ``repro figure paper``; the runs are those of ``repro run ARM --profile paper`` in ``OUT``
or ``OUT/paper``. Cost and hardware: seconds to draw; a run took two hours and a half of two cores
with fast bfloat16 (AMD EPYC). Expected: FedAvg levels off below the paper's 98.76.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.shown import runs_shown, shown
from repro.report.sources import PAPER, Sources
from repro.report.style import INK, by_hospitals, mark, new_figure, say_missing, say_not_run, star
from repro.runs.profiles import PROFILES


def build(sources: Sources) -> Figure:
    evidence = sources.paper
    counts = PROFILES[PAPER].hospitals
    used = runs_shown(evidence, "paper")
    caption = "One line a seed, last round at the right. Open stars: the paper's claims [2nd]. "
    title = "Figure 11. The paper's own setting, round by round"
    caption += evidence.caption(used) if used else f"Not run. {sources.evidence.caption()}"
    figure = new_figure(10.4, 4.0, title, caption)
    panels = by_hospitals(figure, counts, "round", sharey=True)
    for axes, hospitals in panels:
        axes.set_ylim(0, 101)
        axes.set_xlim(0, PROFILES[PAPER].rounds + 1)
        _panel(axes, sources, hospitals)
    panels[0][0].set_ylabel("test accuracy (%)")
    return figure


def _panel(axes: Axes, sources: Sources, hospitals: int) -> None:
    missing = []
    arms = shown("paper")
    for index, (arm, name) in enumerate(arms):
        look, runs = mark(index), sources.paper.runs(arm.name, hospitals)
        for number, run in enumerate(runs):
            rounds = [entry["round"] for entry in run.history]
            label = f"{name}: {100 * run.final_accuracy:.2f}" if not number else None
            axes.plot(rounds, [100 * entry["accuracy"] for entry in run.history], label=label,
                      color=look.color, linestyle=look.line, marker=look.marker,
                      markevery=10)  # fmt: skip
        configuration = arm.presentation.configuration
        claim = configuration and sources.claims.accuracy(configuration, hospitals)
        if claim:
            own = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": look.color}
            label = f"claim {configuration}: {claim.value:.2f}"
            star(axes, PROFILES[PAPER].rounds, claim.value, label=label, clip_on=False, **own)
        if not runs:
            missing.append(name)
    if len(missing) == len(arms):
        say_not_run(axes)
        return
    axes.legend(loc="lower right")
    say_missing(axes, missing, between="\n")
    axes.tick_params(labelcolor=INK)
