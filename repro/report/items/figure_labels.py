"""Figure 2: which classes each hospital holds.

Command: ``repro figure labels``. Cost and hardware: seconds; needs the partition facts
(``OUT/partition/kK.json``), no runs. Expected: nearly the same mix everywhere, since the authors
divide contiguous slices of a shuffled file: hospitals differ in size, not in labels.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.report.items.figure_hospitals import partition_caption
from repro.report.sources import Sources
from repro.report.style import new_figure, say_not_run


def build(sources: Sources) -> Figure:
    counts = sources.evidence.hospital_counts
    partitions = {k: sources.side(f"partition/k{k}") for k in counts}
    caption = "Cells: share of the class among the hospital's images, in per cent. "
    title = "Figure 2. Label mix of the hospitals"
    figure = new_figure(10.2, 6.2, title, caption + partition_caption(partitions))
    panels = figure.subplots(1, len(counts), squeeze=False)[0]
    known = [share for p in partitions.values() if p for row in shares(p) for share in row]
    top = max(known, default=1.0)
    image = None
    for axes, (hospitals, partition) in zip(panels, partitions.items(), strict=True):
        axes.set_title(f"{hospitals} hospitals")
        if partition is None:
            say_not_run(axes)
        else:
            image = _heat(axes, partition, top)
    panels[0].set_ylabel("hospital")
    if image is not None:
        figure.colorbar(image, ax=list(panels), shrink=0.6, pad=0.01, label="share (%)")
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
