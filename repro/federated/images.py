"""Labelled images resident on the device: no loader, no worker processes.

The whole of BloodMNIST is 40 MB as bytes, so it stays where it is used, and a batch is one
gather and one fused scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from repro.shapes import Float, Int, Shaped


@dataclass(frozen=True)
class LabelledImages:
    """images: (N, C, H, W) uint8; labels: (N,) int64, or (N, L) of 0 and 1; both on one device."""

    images: Shaped[Tensor, "n c h w"]
    labels: Int[Tensor, "n ..."]

    @classmethod
    def from_arrays(
        cls, images: np.ndarray, labels: np.ndarray, device: torch.device | str = "cpu"
    ) -> LabelledImages:
        """From (N, H, W, C) uint8 and (N,) or (N, L) integers.

        The permuted view *is* channels-last, the layout convolutions are fastest in.
        """
        tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        return cls(tensor.to(device), torch.from_numpy(labels.astype(np.int64)).to(device))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray | Tensor) -> LabelledImages:
        chosen = torch.as_tensor(indices, device=self.labels.device)
        return LabelledImages(self.images[chosen], self.labels[chosen])

    def inputs(self, indices: Int[Tensor, " b"] | slice = slice(None)) -> Float[Tensor, "b c h w"]:
        """Network inputs, (B, C, H, W) float32 in [−1, 1], channels-last."""
        return normalise(self.images[indices])


def normalise(images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """x/127.5 − 1, the authors' scaling [code]."""
    return images.to(torch.float32, memory_format=torch.channels_last).div_(127.5).sub_(1.0)
