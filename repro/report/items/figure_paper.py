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
from repro.report.style import INK, MUTED, mark, new_figure, say_not_run, star
from repro.runs.profiles import PROFILES


def build(sources: Sources) -> Figure:
    evidence = sources.paper
    counts = PROFILES[PAPER].hospitals
    used = runs_shown(evidence, "paper")
    caption = "One line a seed, last round at the right. Open stars: the paper's claims [2nd]. "
    title = "Figure 11. The paper's own setting, round by round"
    caption += evidence.caption(used) if used else f"Not run. {sources.evidence.caption()}"
    figure = new_figure(10.4, 4.0, title, caption)
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, hospitals in zip(panels, counts, strict=True):
        axes.set_title(f"{hospitals} hospitals")
        axes.set_xlabel("round")
        axes.set_ylim(0, 101)
        axes.set_xlim(0, PROFILES[PAPER].rounds + 1)
        _panel(axes, sources, hospitals)
    panels[0].set_ylabel("test accuracy (%)")
    return figure


def _panel(axes: Axes, sources: Sources, hospitals: int) -> None:
    missing = []
    arms = shown("paper")
    for index, (arm, name) in enumerate(arms):
        look, runs = mark(index), sources.paper.runs(arm.name, hospitals)
        for number, run in enumerate(runs):
            axes.plot(
                [entry["round"] for entry in run.history],
                [100 * entry["accuracy"] for entry in run.history],
                color=look.color,
                linestyle=look.line,
                marker=look.marker,
                markevery=10,
                label=f"{name}: {100 * run.final_accuracy:.2f}" if not number else None,
            )
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
    if missing:
        axes.text(0.02, 0.02, "not run:\n" + "\n".join(missing), transform=axes.transAxes,
                  color=MUTED, size=7.5, va="bottom")  # fmt: skip
    axes.tick_params(labelcolor=INK)
