"""A linear layer on whitened features of length 1: the head that second-order training fills."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.shapes import Float


class WhitenedLinear(nn.Module):
    """x ↦ W · u(T · u(x − m)), where u(v) = v/‖v‖.

    m (``mean``, 0 at first) and T (``transform``, the identity at first) are statistics of the
    training records, released with noise; W (``linear``, 0 at first, no bias) is trained. u keeps
    every record's features at length 1, which bounds what one record adds to any sum.
    forward: (B, features) float32 or float64 -> (B, num_classes).
    """

    mean: Tensor
    transform: Tensor

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("transform", torch.eye(features))
        self.linear = nn.Linear(features, num_classes, bias=False)
        nn.init.zeros_(self.linear.weight)

    def centred(self, x: Float[Tensor, "b f"]) -> Float[Tensor, "b f"]:
        """u(x − m)."""
        return F.normalize(x - self.mean.to(x.dtype), dim=1)

    def whitened(self, x: Float[Tensor, "b f"]) -> Float[Tensor, "b f"]:
        """u(T · u(x − m)): what the linear layer is given."""
        return F.normalize(self.centred(x) @ self.transform.to(x.dtype).T, dim=1)

    def forward(self, x: Float[Tensor, "b f"]) -> Float[Tensor, "b classes"]:
        scores: Tensor = self.linear(self.whitened(x))
        return scores
