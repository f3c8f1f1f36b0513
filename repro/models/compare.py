"""Parameters, multiply–adds and receptive field of each network, measured on the module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import MissingDependency
from repro.models.registry import MODELS, build_model
from repro.runs.settings import ModelSettings


def multiply_adds(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply–adds of convolutions and linear layers for one image of (C, H, W).

    Normalisation, activations, pooling and sums are left out, as is usual.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        positions = output[0].numel() // weight.shape[0]
        total += positions * weight.numel()

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return total


def receptive_field(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Input pixels (along one side) that a unit before global pooling can depend on.

    Computed, not derived from a formula: the product of kernel sizes and strides along the
    longest path, by walking the convolutions and pools in the order they run
    (Araujo, Norris, Sim, *Computing receptive fields*, Distill 2019, eq. 2). A 1×1 layer on a
    side branch changes nothing. The result may exceed the image's side.
    """
    field, jump = 1, 1
    trail: list[tuple[int, int]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kernel, stride = _side(module.kernel_size), _side(module.stride)
        if kernel != 1:  # 1×1 layers are projections beside the main path
            trail.append((kernel, stride))

    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    for kernel, stride in trail:
        field += (kernel - 1) * jump
        jump *= stride
    return field


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


FIXED_FEATURES = "features are fixed; counted is the linear layer that learns"


def compare(
    in_channels: int = 3, num_classes: int = 8, side: int = 28, width: int = 64
) -> list[dict[str, Any]]:
    """One row a model: name, normalisation, parameters, multiply_adds, receptive_field, note.

    A model whose library is missing keeps its row, with a note that says what to install.
    """
    shape = (in_channels, side, side)
    rows = []
    for name in MODELS:
        row: dict[str, Any] = {"model": name, "width": width, "note": ""}
        try:
            model = build_model(
                ModelSettings(name, width), in_channels=in_channels, num_classes=num_classes
            )
        except MissingDependency as missing:
            row["note"] = str(missing)
        else:
            # Measured in the default layout: a forward hook sees the same shapes either way.
            norms = {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__}
            parameters = sum(p.numel() for p in model.parameters())
            row |= {"normalisation": ", ".join(sorted(norms)), "parameters": parameters}
            if hasattr(model, "raw_features"):  # no network of its own: repro.federated.whitening
                row["multiply_adds"] = parameters
            else:
                row["multiply_adds"] = multiply_adds(model, shape)
                row["receptive_field"] = receptive_field(model, shape)
            if hasattr(model, "features"):
                row |= {"width": None, "receptive_field": None, "note": FIXED_FEATURES}
        rows.append(row)
    return rows
