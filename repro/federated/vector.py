"""A model's state as one flat vector, which is what hospitals send and the server averages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from repro.shapes import Float


def _state(model: nn.Module) -> list[Tensor]:
    """Parameters, then floating-point buffers (BatchNorm's running statistics), in order.

    Integer buffers (BatchNorm's batch counter) are left alone: they average to nothing useful,
    and no layer's output depends on them at the default momentum.
    """
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    return [*model.parameters(), *buffers]


def to_vector(model: nn.Module) -> Float[Tensor, " size"]:
    """A copy of the model's state: (P,) float32, on the model's device."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in _state(model)])


@torch.no_grad()
def load_vector(model: nn.Module, vector: Float[Tensor, " size"]) -> None:
    """Write ``vector`` into the model. Raises ValueError when the sizes differ.

    A running variance that noise has taken below zero becomes 0, the nearest one there is: every
    output would be NaN otherwise. It is done to what was released, so it costs no privacy, and
    the model's state remains what updates are relative to.
    """
    state = _state(model)
    if vector.numel() != sum(tensor.numel() for tensor in state):
        raise ValueError(f"{vector.numel()} values do not fill this model's state")
    offset = 0
    for tensor in state:
        values = vector[offset : offset + tensor.numel()]
        tensor.copy_(values.view(tensor.shape))  # keeps the tensor's memory format
        offset += tensor.numel()
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and layer.running_var is not None:
            layer.running_var.clamp_min_(0)
