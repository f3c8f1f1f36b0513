"""Figure 8: ε against round under every reading, and the noise that a total ε needs.

Command: ``repro figure epsilon``. Cost and hardware: seconds; no runs, exact Gaussian accounting
only. Expected: every reading of the documented noise passes ε = 6 by the second round; a true
total of 6 over 50 rounds needs σ = 32.8 where the documentation has 0.699 [calc].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from repro.results.claims import Claim
from repro.results.drawing import Sources
from repro.results.privacy import epsilon
from repro.results.style import INK, MUTED, Mark, mark, new_figure, say_not_run, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    # (σ, L2 sensitivity, rounds, δ) -> ε
    Accountant = Callable[[float, float, int, float], float]

# What is drawn: name, L2 sensitivity, hospitals whose noise adds up in the sum.
READINGS = (
    ("replace an update", 14.0, 1),
    ("add/remove an update", 7.0, 1),
    ("the same, sum of 10", 7.0, 10),
    ("the same, sum of 20", 7.0, 20),
    ("pretending sensitivity 1", 1.0, 1),
)
NEEDS = (("replace", 14.0), ("add/remove", 7.0), ("pretending sensitivity 1", 1.0))


def build(sources: Sources) -> Figure:
    claim = sources.claims.get("epsilon")
    caption = (
        f"Exact Gaussian accounting at δ = {claim['delta']:g}, full participation, noise σ on "
        "every parameter of a hospital's update, clip norm 7; no record-level guarantee beyond "
        "these. Independent of data, profile and seeds."
    )
    title = "Figure 8. ε against round, and the noise an ε needs"
    figure = new_figure(11.2, 5.0, title, caption)
    left, right = figure.subplots(1, 2)
    accountant = _accountant()
    if accountant is None:
        for axes in (left, right):
            say_not_run(axes, "the accountant is not available here")
        return figure
    _rounds(left, claim, accountant)
    _noise(right, claim, accountant)
    return figure


def _accountant() -> Accountant | None:
    try:
        from repro.privacy.accounting import gaussian_epsilon
    except ImportError:
        return None
    return gaussian_epsilon


def _rounds(axes: Axes, claim: Claim, accountant: Accountant) -> None:
    """ε spent after each round with the documented noise."""
    sigma, delta, last = float(claim["sigma"]), float(claim["delta"]), int(claim["rounds"])
    axes.set_title(f"the documented noise, σ = {sigma:.3f}")
    rounds = sorted({1, 2, 3, 4, 5, 7, *range(10, last + 1, 5), last})
    ends = []
    for index, (name, sensitivity, hospitals) in enumerate(READINGS):
        noise = sigma * math.sqrt(hospitals)
        spent = [accountant(noise, sensitivity, count, delta) for count in rounds]
        _curve(axes, rounds, spent, mark(index))
        ends.append((rounds[-1], spent[-1], f"{name}: {epsilon(spent[-1])}", mark(index).color))
    axes.set(yscale="log", xlim=(0, last), ylim=(3, 3e4), xlabel="round", ylabel="ε spent")
    _claimed_line(axes, float(claim.value), 0.03)
    _label(axes, ends, 0.06)


def _noise(axes: Axes, claim: Claim, accountant: Accountant) -> None:
    """Total ε against σ, and which σ the claimed ε needs."""
    delta, rounds, wanted = float(claim["delta"]), int(claim["rounds"]), float(claim.value)
    axes.set_title(f"after {rounds} rounds, add or replace one update")
    sigmas = [10 ** (step / 16) for step in range(-8, 36)]
    ends = []
    for index, (name, sensitivity) in enumerate(NEEDS):
        total = [accountant(sigma, sensitivity, rounds, delta) for sigma in sigmas]
        look = mark((0, 1, 4)[index])
        _curve(axes, sigmas, total, look)
        needed = _solve(lambda s, c=sensitivity: accountant(s, c, rounds, delta), wanted)
        axes.plot([needed], [wanted], marker=look.marker, markersize=9, markerfacecolor="white",
                  markeredgecolor=look.color, zorder=5)  # fmt: skip
        ends.append((sigmas[-1], total[-1], f"{name}:\nneeds σ = {needed:.3g}", look.color))
    documented = float(claim["sigma"])
    axes.axvline(documented, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
    axes.text(documented * 1.08, 0.06, "documented", size=8, color=MUTED, rotation=90, va="bottom")
    axes.set(xscale="log", yscale="log", xlim=(sigmas[0], sigmas[-1]), ylim=(0.05, 3e4))
    axes.set(xlabel="σ, noise on every parameter of an update", ylabel="total ε")
    _claimed_line(axes, wanted, 0.16)
    _label(axes, ends, 0.1)


def _curve(axes: Axes, xs: Sequence[int | float], ys: list[float], look: Mark) -> None:
    axes.plot(
        xs, ys, color=look.color, linestyle=look.line, marker=look.marker,
        markevery=max(1, len(xs) // 6), markersize=4,
    )  # fmt: skip


def _claimed_line(axes: Axes, value: float, left: float) -> None:
    axes.axhline(value, color=INK, linewidth=1)
    axes.annotate(
        f"claimed: ε = {value:g}", (left, value), xycoords=axes.get_yaxis_transform(),
        xytext=(0, -4), textcoords="offset points", va="top", size=8, color=INK,
    )  # fmt: skip


def _label(axes: Axes, ends: list[tuple[int | float, float, str, str]], gap: float) -> None:
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for x, y, _, _ in ends]
    for (x, y, name, color), place in zip(ends, spread(heights, gap, 0.03, 0.98), strict=True):
        axes.annotate(
            name, (x, y), xytext=(1.05, place), textcoords="axes fraction", size=8, color=INK,
            va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 1.2, "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip


def _solve(total: Callable[[float], float], wanted: float) -> float:
    """The σ with that total ε, which falls as σ grows: bisection in log σ to six digits."""
    low, high = 1e-2, 1e4
    while high / low > 1 + 1e-6:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if total(middle) > wanted else (low, middle)
    return high
