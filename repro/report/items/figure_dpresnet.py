"""Figure 9: DPResNet, layer by layer, as the authors' code builds it.

Command: ``repro figure dpresnet``. Cost and hardware: a second, no runs. Expected: eight 3×3
convolutions, one skip, 4,802,120 parameters [code].
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from repro.report.sources import Sources
from repro.report.style import INK, MUTED, new_figure

CLASSES = 8
# One hue, darker with more channels: the order survives grey printing.
FILLS = {64: "#eaf3fa", 128: "#cfe3f2", 256: "#a9cde8", 512: "#7fb3d9"}
# name, input channels, output channels, stride, ReLU after GroupNorm?  [code]
CONVOLUTIONS: tuple[tuple[str, int, int, int, bool], ...] = (
    ("conv1", 3, 64, 1, True),
    ("conv2", 64, 128, 1, True),
    ("res1", 128, 128, 1, True),
    ("res1", 128, 128, 1, False),
    ("res2", 128, 256, 2, True),
    ("res2", 256, 256, 1, False),
    ("res3", 256, 512, 2, True),
    ("res3", 512, 512, 1, False),
)


def parameters() -> int:
    """Weights of the convolutions (3×3, no bias), their GroupNorms, and the linear layer."""
    convolutions = sum(9 * inputs * outputs for _, inputs, outputs, _, _ in CONVOLUTIONS)
    norms = sum(2 * outputs for _, _, outputs, _, _ in CONVOLUTIONS)
    last = CONVOLUTIONS[-1][2]
    return convolutions + norms + last * CLASSES + CLASSES


def build(sources: Sources) -> Figure:
    """Boxes from left to right: height falls with the image, width grows with the channels."""
    title = "Figure 9. DPResNet as the authors' code builds it [code]"
    caption = (
        f"{parameters():,} parameters with 3 input channels and {CLASSES} classes. All "
        "convolutions 3×3, padding 1, no bias; GN: GroupNorm with 32 groups. Only the first "
        "residual block has a skip; nothing follows its sum, and the last two blocks end without "
        "ReLU. Independent of data, profile and seeds."
    )
    figure = new_figure(11.4, 3.8, title, caption)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.grid(False)
    ends = _layers(axes)
    _skip(axes, *ends)
    axes.set_xlim(-0.5, 12.75)
    axes.set_ylim(-1.95, 2.25)
    return figure


def _layers(axes: Axes) -> tuple[float, float]:
    """Draw every layer; returns where the skip leaves and where it comes back."""
    size, x = 28, 0.0
    _box(axes, x, size, "#ffffff", ["image", "28×28×3"])
    leaves = back = 0.0
    for index, (name, _, outputs, stride, relu) in enumerate(CONVOLUTIONS):
        size //= stride
        before, x = x, x + 1.22
        _arrow(axes, before, x)
        if index == 2:
            leaves = (before + x) / 2
        if index == 4:
            back = (before + x) / 2
        text = [name, f"conv {outputs}", *([f"stride {stride}"] if stride > 1 else []), "GN"]
        color = FILLS[outputs]
        _box(axes, x, size, color, [*text, *(["ReLU"] if relu else [])])
        axes.text(x, -1.75, f"{size}×{size}×{outputs}", ha="center", size=7, color=MUTED)
    _arrow(axes, x, x + 1.22)
    _box(axes, x + 1.22, 10, "#ffffff", ["average", "pool"])
    _arrow(axes, x + 1.22, x + 2.44)
    _box(axes, x + 2.44, 10, "#ffffff", ["linear", f"512→{CLASSES}"])
    for place, below in ((x + 1.22, "512"), (x + 2.44, f"{CLASSES} classes")):
        axes.text(place, -1.75, below, ha="center", size=7, color=MUTED)
    return leaves, back


def _box(axes: Axes, x: float, size: int, color: str, lines: list[str]) -> None:
    height = 1.55 + 1.35 * size / 28
    shape = "round,pad=0,rounding_size=0.07"
    axes.add_patch(
        FancyBboxPatch((x - 0.44, -height / 2), 0.88, height, boxstyle=shape, fc=color, ec=INK)
    )
    axes.text(x, 0, "\n".join(lines), ha="center", va="center", size=7.5, linespacing=1.35)


def _arrow(axes: Axes, left: float, right: float) -> None:
    axes.annotate(
        "",
        xy=(right - 0.45, 0),
        xytext=(left + 0.45, 0),
        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1, "shrinkA": 0, "shrinkB": 0},
    )


def _skip(axes: Axes, leaves: float, back: float) -> None:
    """The identity around res1, and its sum."""
    high = 1.85
    axes.plot([leaves, leaves, back, back], [0, high, high, 0.13], color=INK, linewidth=1.2)
    axes.plot([back], [0], marker="o", markersize=10, color="white", markeredgecolor=INK, zorder=4)
    axes.text(back, -0.005, "+", ha="center", va="center", size=9, zorder=5)
    axes.text((leaves + back) / 2, high + 0.08, "identity", ha="center", va="bottom", size=8)
