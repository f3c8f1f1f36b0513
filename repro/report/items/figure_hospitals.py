"""Figure 1: how many images each hospital holds, as the authors divide them.

Command: ``repro figure hospitals``. Cost and hardware: seconds; needs the partition facts
(``repro partition --json`` in ``OUT/partition/kK.json``), no runs. Expected: 761 to 1,631 images
with 10 hospitals, 328 to 868 with 20 [code].
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.evidence import data_caption
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, OKABE_ITO, new_figure, say_not_run


def build(sources: Sources) -> Figure:
    counts = sources.evidence.hospital_counts
    partitions = {k: sources.side(f"partition/k{k}") for k in counts}
    figure = new_figure(10.2, 4.4, "Figure 1. Images per hospital", partition_caption(partitions))
    widths = [max(k, 8) + 4 for k in counts]
    panels = figure.subplots(1, len(counts), squeeze=False, width_ratios=widths)[0]
    for axes, (hospitals, partition) in zip(panels, partitions.items(), strict=True):
        axes.set_title(f"{hospitals} hospitals")
        if partition is None:
            say_not_run(axes)
        else:
            _bars(axes, partition)
        axes.set_xlabel("hospital")
    panels[0].set_ylabel("images")
    return figure


def partition_caption(partitions: dict[int, dict[str, Any] | None]) -> str:
    """Data and scheme; the partition's seed only moves images between train and validation."""
    known = next((p for p in partitions.values() if p), None)
    if known is None:
        return "Data: not divided yet."
    return (
        f"{data_caption(known['dataset'])} Training split divided by the scheme "
        f"“{known.get('scheme', 'authors')}”, train/validation split with seed "
        f"{known.get('seed', 0)}. Independent of profile."
    )


def _bars(axes: Axes, partition: dict[str, Any]) -> None:
    sizes, train = partition["sizes"], partition["train_sizes"]
    places = list(range(1, len(sizes) + 1))
    held = [size - part for size, part in zip(sizes, train, strict=True)]
    axes.bar(places, train, color=OKABE_ITO["blue"], width=0.78, label="trained on")
    axes.bar(
        places,
        held,
        bottom=train,
        color="#ffffff",
        edgecolor=OKABE_ITO["blue"],
        hatch="////",
        linewidth=0.8,
        width=0.78,
        label="kept for validation",
    )
    small = len(sizes) > 12
    for place, size in zip(places, sizes, strict=True):
        axes.annotate(
            f"{size:,}",
            (place, size),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            size=6.5 if small else 7,
            color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )
    mean = sum(sizes) / len(sizes)
    axes.axhline(mean, color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    axes.text(len(sizes) + 0.6, mean, f" mean {mean:,.0f}", va="center", size=7.5, color=MUTED)
    axes.set_xticks(places, [str(place) for place in places])
    axes.set_xlim(0.3, len(sizes) + 0.7)
    axes.set_ylim(0, 1.16 * max(sizes))
    axes.grid(False, axis="x")
    axes.legend(loc="upper right", ncols=2, handlelength=1.4)
