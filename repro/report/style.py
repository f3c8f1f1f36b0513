"""How figures look: colours that colour-blind readers and grey printers can tell apart.

Colours are Okabe & Ito's (2008); the four that may share a panel are at least 10 steps of
lightness (CIE L*) apart. Every series also has its own marker and line style, so colour is never
the only mark.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from repro.files import write_whole

INK = "#1a1a1a"
MUTED = "#5c5c5c"
GRID = "#d9d9d9"
OKABE_ITO = {
    "black": "#000000",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
}


class Mark(NamedTuple):
    """How one series is drawn."""

    color: str
    line: Any
    marker: str


MARKS = (  # by position within one panel
    Mark(OKABE_ITO["black"], "-", "o"),
    Mark(OKABE_ITO["orange"], (0, (6, 1.5)), "s"),
    Mark(OKABE_ITO["blue"], (0, (3, 1, 1, 1)), "^"),
    Mark(OKABE_ITO["green"], (0, (1, 1)), "D"),
    Mark(OKABE_ITO["vermilion"], (0, (6, 1.5, 1, 1.5, 1, 1.5)), "v"),
    Mark(OKABE_ITO["purple"], (0, (9, 3)), "P"),
)

Point = tuple[int | float, int | float]
End = tuple[int | float, int | float, str, str]  # of a line: x, y, its name, its colour

SETTINGS: Any = {  # matplotlib's keys are a literal type too long to name
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # no font needed to read the file
    "svg.hashsalt": "dpresnet-repro",  # equal figures, equal bytes
}


def mark(index: int) -> Mark:
    return MARKS[index % len(MARKS)]


def applied() -> AbstractContextManager[None]:
    """The house style, for figures built and saved inside."""
    return rc_context(SETTINGS)


def new_figure(width: float, height: float, title: str, caption: str) -> Figure:
    """An empty figure (inches) with its title above and its caption below the panels.

    Built without ``pyplot``: no global state and no display.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    lines = textwrap.wrap(caption, width=int(width * 17))
    bottom = (0.16 * len(lines) + 0.12) / height
    top = 0.42 / height
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.005, bottom, 0.99, 1 - bottom - top), w_pad=0.08, h_pad=0.06)
    figure.text(
        0.09 / width, 1 - 0.1 / height, title, fontsize=12, weight="bold", va="top", color=INK
    )
    figure.text(
        0.09 / width,
        0.07 / height,
        "\n".join(lines),
        fontsize=8,
        va="bottom",
        color=MUTED,
        linespacing=1.35,
    )
    return figure


def legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], ncols: int) -> None:
    """One legend for all panels, between them and the caption."""
    engine: Any = figure.get_layout_engine()
    left, bottom, width, height = engine.get()["rect"]
    rows = -(-len(labels) // ncols)
    room = (0.19 * rows + 0.12) / figure.get_size_inches()[1]
    figure.legend(
        handles, labels, loc="lower center", bbox_to_anchor=(0.5, bottom), ncols=ncols, borderpad=0
    )
    engine.set(rect=(left, bottom + room, width, height - room))


def by_hospitals(
    figure: Figure, counts: Sequence[int], xlabel: str | None = None, **grid: Any
) -> list[tuple[Axes, int]]:
    """A panel for each number of hospitals, side by side. grid: as of ``Figure.subplots``."""
    panels = figure.subplots(1, len(counts), squeeze=False, **grid)[0]
    for axes, hospitals in zip(panels, counts, strict=True):
        axes.set_title(f"{hospitals} hospitals")
        if xlabel:
            axes.set_xlabel(xlabel)
    return list(zip(panels, counts, strict=True))


def say_not_run(axes: Axes) -> None:
    """An empty panel that says so."""
    axes.grid(False)
    axes.tick_params(length=0, labelleft=False, labelbottom=False)
    middle: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, "not run", color=MUTED, size=11, **middle)


def say_missing(axes: Axes, names: Sequence[str], *, between: str) -> None:
    """In a panel's lower corner: whose lines are not there, as nobody ran them."""
    if names:
        said = f"not run:{between[-1]}" + between.join(names)
        axes.text(0.02, 0.02, said, transform=axes.transAxes, color=MUTED, size=7.5, va="bottom")


def star(axes: Axes, x: int | float, y: int | float, **look: Any) -> None:
    """A claim of the paper, which nobody ran: hollow, where it puts itself."""
    hollow: dict[str, Any] = {
        "markerfacecolor": "white",
        "markeredgecolor": INK,
        "markersize": 13,
    } | look
    axes.plot([x], [y], marker="*", linestyle="none", **hollow)


def note(axes: Axes, text: str, at: Point, offset: Point, **look: Any) -> None:
    """Text at a point, moved by ``offset`` (in typographic points)."""
    axes.annotate(text, at, xytext=offset, textcoords="offset points", **look)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions closest to ``values`` that are at least ``gap`` apart, for labels of lines.

    Least squares under an order: isotonic regression of value − rank·gap by pooling adjacent
    violators (Ayer et al. 1955), then shifted into [low, high] where that is long enough.
    """
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    pools: list[list[float]] = []  # [sum, count] of neighbours that must move together
    for rank, i in enumerate(order):
        pools.append([values[i] - rank * gap, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1] = [pools[-1][0] + total, pools[-1][1] + count]
    flat = [total / count for total, count in pools for _ in range(int(count))]
    top = high - (len(values) - 1) * gap
    placed = [0.0] * len(values)
    for rank, i in enumerate(order):
        placed[i] = max(low, min(flat[rank], top)) + rank * gap
    return placed


def label_ends(
    axes: Axes,
    ends: Sequence[End],
    *,
    gap: float = 0.085,
    low: float = 0.03,
    beside: float = 1.06,
    at_edge: bool = False,
    **arrow: Any,
) -> None:
    """Names beside the axes, each with a line to the end that it names, and never overlapping.

    gap: between names; low: of the lowest; beside: where they begin, all as parts of the axes.
    at_edge: every line goes to the right edge, so that names are led to it.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((x, y))[1]) for x, y, _, _ in ends]
    places = spread(heights, gap, low, 0.98)
    for (x, y, name, color), height, place in zip(ends, heights, places, strict=True):
        end, frame = ((1.0, height), "axes fraction") if at_edge else ((x, y), "data")
        look = {"arrowstyle": "-", "color": color, "lw": 1.2, "shrinkA": 1, "shrinkB": 3} | arrow
        axes.annotate(name, xy=end, xycoords=frame, xytext=(beside, place),
                      textcoords="axes fraction", color=INK, size=8, va="center",
                      annotation_clip=False, arrowprops=look)  # fmt: skip


def _settle(figure: Figure) -> None:
    """Lay the panels out once and round their places.

    The layout's solver visits its variables in an order that depends on memory addresses, so
    its last bits differ from process to process, and matplotlib hashes those bits into SVG ids.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # "none" leaves a stand-in, for which all is drawn once more
    for axes in figure.axes:
        left, bottom, width, height = axes.get_position(original=True).bounds
        axes.set_position(
            (round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)), which="original"
        )


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """NAME.svg and NAME.png (200 dpi) in ``folder``; equal figures give equal bytes."""
    _settle(figure)
    paths = []
    for ending, metadata in (
        ("svg", {"Date": None, "Creator": "repro"}),
        ("png", {"Software": None}),
    ):
        content = io.BytesIO()
        figure.savefig(content, format=ending, dpi=200, metadata=metadata)
        path = folder / f"{name}.{ending}"
        write_whole(path, content.getvalue())
        paths.append(path)
    return paths
