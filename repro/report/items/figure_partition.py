"""Figures 1 and 2: how many images each hospital holds, and of which classes."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.evidence import data_caption
from repro.report.sources import Sources
from repro.report.style import INK, MUTED, OKABE_ITO, by_hospitals, new_figure, note, say_not_run


def build_hospitals(sources: Sources) -> Figure:
    """Figure 1: how many images each hospital holds, as the authors divide them.

    Command: ``repro figure hospitals``. Cost and hardware: seconds; needs the partition facts
    (``repro partition --json`` in ``OUT/partition/kK.json``), no runs. Expected: 761 to 1,631
    images with 10 hospitals, 328 to 868 with 20 [code].
    """
    counts = sources.evidence.hospital_counts
    partitions = {k: sources.side(f"partition/k{k}") for k in counts}
    figure = new_figure(10.2, 4.4, "Figure 1. Images per hospital", partition_caption(partitions))
    widths = [max(k, 8) + 4 for k in counts]
    panels = by_hospitals(figure, counts, "hospital", width_ratios=widths)
    for axes, hospitals in panels:
        if partition := partitions[hospitals]:
            _bars(axes, partition)
        else:
            say_not_run(axes)
    panels[0][0].set_ylabel("images")
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
    axes.bar(places, held, bottom=train, color="#ffffff", edgecolor=OKABE_ITO["blue"],
             hatch="////", linewidth=0.8, width=0.78, label="kept for validation")  # fmt: skip
    small = len(sizes) > 12
    for place, size in zip(places, sizes, strict=True):
        look: dict[str, Any] = {"ha": "center", "size": 6.5 if small else 7, "color": INK}
        card = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        note(axes, f"{size:,}", (place, size), (0, 3), bbox=card, **look)
    mean = sum(sizes) / len(sizes)
    axes.axhline(mean, color=MUTED, linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    axes.text(len(sizes) + 0.6, mean, f" mean {mean:,.0f}", va="center", size=7.5, color=MUTED)
    axes.set_xticks(places, [str(place) for place in places])
    axes.set_xlim(0.3, len(sizes) + 0.7)
    axes.set_ylim(0, 1.16 * max(sizes))
    axes.grid(False, axis="x")
    axes.legend(loc="upper right", ncols=2, handlelength=1.4)


def build_labels(sources: Sources) -> Figure:
    """Figure 2: which classes each hospital holds.

    Command: ``repro figure labels``. Cost and hardware: seconds; needs the partition facts
    (``OUT/partition/kK.json``), no runs. Expected: nearly the same mix everywhere, since the
    authors divide contiguous slices of a shuffled file: hospitals differ in size, not in labels.
    """
    counts = sources.evidence.hospital_counts
    partitions = {k: sources.side(f"partition/k{k}") for k in counts}
    caption = "Cells: share of the class among the hospital's images, in per cent. "
    title = "Figure 2. Label mix of the hospitals"
    figure = new_figure(10.2, 6.2, title, caption + partition_caption(partitions))
    panels = by_hospitals(figure, counts)
    known = [share for p in partitions.values() if p for row in shares(p) for share in row]
    top = max(known, default=1.0)
    image = None
    for axes, hospitals in panels:
        if partition := partitions[hospitals]:
            image = _heat(axes, partition, top)
        else:
            say_not_run(axes)
    panels[0][0].set_ylabel("hospital")
    if image is not None:
        figure.colorbar(
            image, ax=[axes for axes, _ in panels], shrink=0.6, pad=0.01, label="share (%)"
        )
    return figure


def shares(partition: dict[str, Any]) -> list[list[float]]:
    """Per cent of each class, a row per hospital and a last one for all together."""
    rows = [*partition["labels"], [sum(column) for column in zip(*partition["labels"])]]  # noqa: B905
    return [[100 * count / max(1, sum(row)) for count in row] for row in rows]


def _heat(axes: Axes, partition: dict[str, Any], top: float) -> Any:
    rows = shares(partition)
    image = axes.imshow(rows, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    names = partition.get("class_names") or [f"class {i}" for i in range(len(rows[0]))]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [*map(str, range(1, len(rows))), "all"])
    axes.grid(False)
    axes.tick_params(length=0)
    axes.axhline(len(rows) - 1.5, color="black", linewidth=1)
    for y, row in enumerate(rows):
        for x, share in enumerate(row):
            color = "white" if share > 0.6 * top else "black"
            axes.text(x, y, f"{share:.0f}", ha="center", va="center", size=7, color=color)
    return image
