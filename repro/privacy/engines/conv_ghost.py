"""Ghost norms of 2-D convolutions from Gram matrices of pixels instead of patches.

‖Σ_t δ_t a_tᵀ‖² = Σ_{t,u} (a_t · a_u)(δ_t · δ_u), where a_t is the input patch under output
position t (Bu et al. 2022, arXiv 2205.10683). Patches overlap, so their Gram matrix is a sum
over kernel offsets k of the *same* pixel Gram matrix, shifted:

    a_t · a_u = Σ_k x[t + k] · x[u + k]

which costs pixels² · C_in multiply-adds instead of T² · C_in k², and no unfolding. With the
output gradients laid out on the pixel grid (zero elsewhere), both matrices are (U, U), the shift
by k is a shift of the flattened matrix by k · (U + 1), and every step is a matrix product or a
contiguous vector addition. Strides split the pixels into residue classes, one Gram matrix each.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.privacy.engines.layers import GhostNorms

_FLOATS_AT_ONCE = 1 << 18  # of one Gram matrix batch: 1 MiB, so that three stay in cache


@dataclass(frozen=True)
class PixelGrid:
    """The common grid of all residue classes, and which kernel offsets fall in which class."""

    stride: tuple[int, int]
    size: tuple[int, int]  # rows and columns of a class: output size plus the largest shift
    shifts: dict[tuple[int, int], list[int]]  # residue -> flat shifts of its kernel offsets

    @classmethod
    def of(cls, layer: Any, output_size: tuple[int, int]) -> PixelGrid:
        offsets = [
            [divmod(dilation * tap, stride) for tap in range(kernel)]
            for kernel, dilation, stride in zip(
                layer.kernel_size, layer.dilation, layer.stride, strict=True
            )
        ]
        rows, columns = (
            out + max(shift for shift, _ in axis)
            for out, axis in zip(output_size, offsets, strict=True)
        )
        shifts: dict[tuple[int, int], list[int]] = {}
        for (down, row), (right, column) in itertools.product(*offsets):
            shifts.setdefault((row, column), []).append(down * columns + right)
        return cls(layer.stride, (rows, columns), shifts)

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    def multiply_adds(self, layer: Any, views: int) -> int:
        """Per record; an elementwise addition counts like ten multiply-adds of a product."""
        matrix = (views * self.pixels) ** 2
        products = len(self.shifts) * layer.in_channels + layer.out_channels
        additions = sum(len(shifts) for shifts in self.shifts.values()) + layer.groups
        return matrix * (products + 10 * layer.groups * additions)


def ghost_norms(layer: Any, padding: list[int], x: Tensor, g: Tensor, records: int) -> GhostNorms:
    """Squared norms (records,) of the weight gradients of a 2-D convolution.

    x: (records · views, C_in, H, W); g: (records · views, C_out, H_out, W_out).
    """
    views = len(g) // records
    grid = PixelGrid.of(layer, (g.shape[2], g.shape[3]))
    matrix = layer.groups * (views * grid.pixels) ** 2
    chunk = views * max(1, _FLOATS_AT_ONCE // matrix)
    parts = [
        _norms(layer, padding, grid, xs, gs, views)
        for xs, gs in zip(x.split(chunk), g.split(chunk), strict=True)
    ]
    return GhostNorms(
        torch.cat([part.squared for part in parts]), torch.cat([part.spread for part in parts])
    )


def _norms(
    layer: Any, padding: list[int], grid: PixelGrid, x: Tensor, g: Tensor, views: int
) -> GhostNorms:
    (rows, columns), (down, right) = grid.size, grid.stride
    padded = F.pad(
        x,
        (
            padding[1],
            max(0, right * columns - x.shape[3] - padding[1]),
            padding[0],
            max(0, down * rows - x.shape[2] - padding[0]),
        ),
    )
    positions = views * grid.pixels
    last = max(max(shifts) for shifts in grid.shifts.values())
    # Entries of valid positions end here for the largest shift, and so for every one.
    length = positions**2 - last * (positions + 1)
    patches: Tensor | None = None
    for (row, column), shifts in grid.shifts.items():
        pixels = padded[:, :, row::down, column::right][:, :, :rows, :columns]
        gram = _gram(pixels, views, layer.groups)
        for shift in shifts:
            start = shift * (positions + 1)
            term = gram[:, start : start + length]
            patches = term.clone() if patches is None else patches.add_(term)
    assert patches is not None
    outputs = _gram(F.pad(g, (0, columns - g.shape[3], 0, rows - g.shape[2])), views, layer.groups)[
        :, :length
    ]
    lengths = [
        gram[:, :: positions + 1].unflatten(0, (-1, layer.groups)).clone()
        for gram in (patches, outputs)
    ]
    squared = patches.mul_(outputs).sum(dim=1).view(-1, layer.groups).sum(dim=1)
    return GhostNorms.of(squared, *lengths)


def _gram(maps: Tensor, views: int, groups: int) -> Tensor:
    """(b · views, C, h, w) -> (b · groups, (views · h · w)²), Gram matrices over channels."""
    features = maps.permute(0, 2, 3, 1).unflatten(3, (groups, -1))
    features = features.reshape(len(maps) // views, -1, groups, features.shape[4])
    features = features.transpose(1, 2).flatten(0, 1)
    return (features @ features.mT).flatten(1)
