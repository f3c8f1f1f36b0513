"""Figure 5: what accuracy an ε buys, and where the accountant puts the paper's point.

Command: ``repro figure frontier``. Cost and hardware: seconds; the runs are Table 1's. Expected:
honest arms rise with ε; the paper's claim, drawn hollow at the ε = 6 it names, belongs at ∞ (no
noise) or in the thousands (documented noise), where accuracy is that of chance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from repro.formatting import small
from repro.report.evidence import Evidence
from repro.report.sources import Sources
from repro.report.statistics import Summary
from repro.report.style import INK, MUTED, OKABE_ITO, legend_below, new_figure
from repro.runs.arms import ARMS, EPSILONS
from repro.runs.guarantees import promise, target_epsilon, total_epsilon
from repro.runs.settings import RecordPrivacy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEFT, RIGHT, INFINITY = 0.5, 2e4, 1e5  # of the axis; where ∞ is drawn, beyond its break
POOLED = "scattering-central-dpsgd-eps6"
# Arms by ε, colour, marker, label, and a factor that keeps equal ε apart.
FRONTIERS = (
    ("dpsgd-eps{:g}", OKABE_ITO["blue"], "o", "record-level DP-SGD", 0.97),
    ("dpsgd-eps{:g}-secagg", OKABE_ITO["orange"], "^", "record-level DP-SGD + SecAgg", 1.03),
    ("scattering-dpsgd-eps{:g}", OKABE_ITO["sky"], "X", "scattering, noise in each hospital", 1.0),
    (
        "scattering-shared-eps{:g}",
        OKABE_ITO["vermilion"],
        "P",
        "scattering, noise shared inside the secure sum",
        1.0,
    ),
)


def build(sources: Sources) -> Figure:
    evidence = sources.evidence
    counts = evidence.hospital_counts
    arms = [one.format(e) for e in EPSILONS for one, *_ in FRONTIERS]
    arms += [
        "scattering-fedavg",
        POOLED,
        "fedavg",
        "clip-secagg",
        "documented-secagg",
        "calibrated-secagg",
    ]
    used = [r for arm in arms for k in counts for r in evidence.runs(arm, k)]
    caption = (
        "Points: mean over seeds of the last round; bars: ± one standard deviation. ε: total at "
        f"δ = {small(RecordPrivacy().delta)} ({small(ARMS[POOLED].delta)} where all images are in "
        "one place) from each run's ledger, for one record (circles, "
        "triangles, crosses) or one hospital (squares); the two are different promises. "
    )
    title = "Figure 5. Test accuracy against ε"
    figure = new_figure(10.6, 5.6, title, caption + evidence.caption(used))
    panels = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, hospitals in zip(panels, counts, strict=True):
        axes.set_title(f"{hospitals} hospitals")
        _axis(axes)
        _frontier(axes, evidence, hospitals)
        _readings(axes, evidence, hospitals)
        _claim(axes, sources, hospitals)
    panels[0].set_ylabel("test accuracy (%)")
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    legend_below(figure, list(handles.values()), list(handles), 3)
    return figure


def _axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlim(LEFT, 3.2 * INFINITY)
    axes.set_ylim(0, 104)
    ticks = [1, 3, 6, 10, 100, 1000, 10000]
    axes.set_xticks([*ticks, INFINITY], [*(f"{tick:,}" for tick in ticks), "∞"])
    axes.minorticks_off()
    axes.set_xlabel("ε (total; smaller is more private)")
    axes.axvspan(RIGHT * 1.5, 3.2 * INFINITY, color="#f0f0f0", zorder=0)
    axes.text(INFINITY, 2, "no guarantee", ha="center", size=7.5, color=MUTED)


def _point(
    axes: Axes, x: float, summary: Summary | None, at_infinity: float = INFINITY, **look: Any
) -> None:
    if summary is None:
        return
    x = min(x, RIGHT) if math.isfinite(x) else at_infinity
    deviation = 100 * (summary.deviation or 0.0)
    options: dict[str, Any] = {
        "linestyle": "none",
        "capsize": 3,
        "elinewidth": 1.2,
        "markersize": 7,
    } | look
    axes.errorbar([x], [100 * summary.mean], yerr=[deviation], **options)


def _frontier(axes: Axes, evidence: Evidence, hospitals: int) -> None:
    for name, color, marker, label, shift in FRONTIERS:
        points = []
        for wanted in EPSILONS:
            arm = name.format(wanted)
            runs, summary = evidence.runs(arm, hospitals), evidence.final(arm, hospitals)
            if summary is not None:
                spent = max(total_epsilon(run, "record") for run in runs)
                x = spent if math.isfinite(spent) else wanted
                points.append((shift * x, summary))
        xs, ys = [x for x, _ in points], [100 * s.mean for _, s in points]
        axes.plot(xs, ys, color=color, linewidth=1)
        for x, summary in points:
            _point(axes, x, summary, color=color, marker=marker, label=label)
    look: dict[str, Any] = {"color": OKABE_ITO["sky"], "marker": "X", "markerfacecolor": "white"}
    label = "scattering, all images in one place"
    final = evidence.final(POOLED, hospitals)
    _point(axes, target_epsilon(POOLED) or math.inf, final, label=label, **look)


def _readings(axes: Axes, evidence: Evidence, hospitals: int) -> None:
    for arm, color, marker, label in (
        ("fedavg", OKABE_ITO["black"], "D", "FedAvg, no privacy"),
        ("clip-secagg", OKABE_ITO["green"], "v", "“DP+” as most likely run (clip only)"),
        ("documented-secagg", OKABE_ITO["vermilion"], "s", "“DP+” as documented (hospital)"),
        ("scattering-fedavg", OKABE_ITO["sky"], "P", "scattering, no privacy"),
        (
            "calibrated-secagg",
            OKABE_ITO["purple"],
            "s",
            f"noise for {promise('calibrated-secagg')}",
        ),
    ):
        runs = evidence.runs(arm, hospitals)
        if not runs:
            continue
        totals = [total_epsilon(run, "hospital") for run in runs]
        filled = {"markerfacecolor": "white"} if arm == "calibrated-secagg" else {}
        _point(
            axes,
            max(totals),
            evidence.final(arm, hospitals),
            # Side by side where ∞ is drawn: their accuracies nearly agree.
            INFINITY * (0.66 if arm.endswith("fedavg") else 1.5),
            color=color,
            marker=marker,
            label=label,
            **filled,
        )


def _claim(axes: Axes, sources: Sources, hospitals: int) -> None:
    """The paper's point where it puts itself, and an arrow to where the accountant puts it."""
    claim = sources.claims.accuracy("DP+ / SecAgg+", hospitals)
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
        label=f"the paper's claim, at the ε it names [{claim.source}]",
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
        size=7.5,
        color=INK,
    )
