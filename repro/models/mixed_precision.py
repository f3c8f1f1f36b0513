"""A network that trains with bfloat16 convolutions and products, all else in float32.

*bf16-mixed*: parameters, gradients, optimizer, update, aggregation and evaluation are float32.
While the network trains, convolutions and matrix products read bfloat16 operands and add up in
float32 (``torch.autocast``). GroupNorm reads and writes bfloat16 and reckons in float32, which
costs no accuracy between two convolutions that round their input anyway; logits are float32
before the loss.
"""

from __future__ import annotations

import functools
import time

import torch
from torch import Tensor, nn

from repro.errors import InputError
from repro.shapes import Float

FAST = 1.3  # times float32's speed, from which bfloat16 counts as fast
_TRIALS = 7


class MixedPrecision(nn.Module):
    """``model``, in bf16-mixed while it is in training mode and in float32 otherwise.

    forward: (B, C, H, W) float32 -> (B, classes) float32. Parameters are ``model``'s own.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        if not self.training:
            result: Tensor = self.model(images)
            return result
        device = images.device.type
        with torch.autocast(device, dtype=torch.bfloat16):
            outputs: Tensor = self.model(_laid_out(images))
        return outputs.float()


def _laid_out(images: Tensor) -> Tensor:
    """On CPUs as (B, C, H, W) in memory: convolutions are a little faster channels-last, but
    GroupNorm's bfloat16 kernel is several times slower there."""
    return images.contiguous() if images.device.type == "cpu" else images


def in_precision(model: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """``model`` as it trains in ``precision`` on ``device``.

    Raises InputError for bf16-mixed where the device has no bfloat16.
    """
    if precision == "float32":
        return model
    if device.type not in ("cpu", "cuda"):
        raise InputError("precision", precision, f"float32 on a {device.type} device")
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise InputError("precision", precision, "float32: this GPU has no bfloat16")
    if device.type == "cpu":
        model = model.to(memory_format=torch.contiguous_format)
    return MixedPrecision(model)


@functools.cache
def speed_of_bfloat16(device: str) -> float:
    """How many times as fast as in float32 one of the paper's convolutions is in bfloat16.

    Measured once a process, some 50 ms: the fastest of interleaved trials, so that a busy neighbour
    does not decide.
    """
    where = torch.device(device)
    kinds = (torch.float32, torch.bfloat16)
    operands = {
        kind: (
            torch.ones(8, 128, 28, 28, dtype=kind, device=where),
            torch.ones(128, 128, 3, 3, dtype=kind, device=where),
        )
        for kind in kinds
    }
    fastest = dict.fromkeys(kinds, float("inf"))
    for trial in range(_TRIALS + 1):
        for kind, (images, weights) in operands.items():
            started = time.perf_counter()
            nn.functional.conv2d(images, weights, padding=1)
            if where.type == "cuda":
                torch.cuda.synchronize(where)
            if trial:  # the first warms up
                fastest[kind] = min(fastest[kind], time.perf_counter() - started)
    return fastest[torch.float32] / fastest[torch.bfloat16]
