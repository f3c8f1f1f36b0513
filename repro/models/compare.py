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
    return sum(
        output[0].numel() // module.weight.shape[0] * module.weight.numel()
        for module, output in _calls(model, shape, nn.Conv2d, nn.Linear)
    )


def receptive_field(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Input pixels (along one side) that a unit before global pooling can depend on.

    Computed, not derived from a formula: the product of kernel sizes and strides along the
    longest path, by walking the convolutions and pools in the order they run
    (Araujo, Norris, Sim, *Computing receptive fields*, Distill 2019, eq. 2). A 1×1 layer on a
    side branch changes nothing. The result may exceed the image's side.
    """
    field, jump = 1, 1
    for module, _ in _calls(model, shape, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d):
        kernel, stride = _side(module.kernel_size), _side(module.stride)
        if kernel != 1:  # 1×1 layers are projections beside the main path
            field += (kernel - 1) * jump
            jump *= stride
    return field


def _calls(
    model: nn.Module, shape: tuple[int, int, int], *kinds: type[nn.Module]
) -> list[tuple[Any, Tensor]]:
    """(layer, output) of every layer of these kinds, in the order in which they run on one image
    of (C, H, W)."""
    found: list[tuple[Any, Tensor]] = []
    handles = [
        layer.register_forward_hook(lambda module, _, output: found.append((module, output)))
        for layer in model.modules()
        if isinstance(layer, kinds)
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *shape))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found


def _side(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)


FIXED_FEATURES = "features are fixed; counted is the linear layer that learns"


def compare() -> list[dict[str, Any]]:
    """One row a model: name, normalisation, parameters, multiply_adds, receptive_field, note.

    For BloodMNIST's images at width 64. A model whose library is missing keeps its row, with a
    note that says what to install.
    """
    shape, width = (3, 28, 28), 64
    rows = []
    for name in MODELS:
        row: dict[str, Any] = {"model": name, "width": width, "note": ""}
        try:
            model = build_model(ModelSettings(name, width), in_channels=3, num_classes=8)
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
