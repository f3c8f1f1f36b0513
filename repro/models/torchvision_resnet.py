"""ResNet-18 from torchvision, adapted to 28-pixel images."""

from __future__ import annotations

from torch import nn

from repro.errors import InputError, MissingDependency


def resnet18(in_channels: int = 3, num_classes: int = 8, width: int = 64) -> nn.Module:
    """torchvision's ResNet-18 with a 3×3 stride-1 stem and no stem pooling.

    The change is MedMNIST v2's for 28-pixel images (Yang et al. 2023, "ResNet-18 (28)"): the
    usual stem would leave 7×7 pixels before the first block.
    width: torchvision builds 64 only.
    """
    if width != 64:
        raise InputError("width", width, "64 for resnet18 (torchvision builds no other)")
    try:
        from torchvision.models import resnet18 as build
    except (ImportError, RuntimeError) as problem:
        # A torchvision that does not match torch fails with RuntimeError at import.
        raise MissingDependency(
            "torchvision", "resnet18", f"install the build that matches torch ({problem})"
        ) from problem
    model = build(weights=None, num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, stride=1, padding=1, bias=False)
    model.maxpool = nn.Identity()
    result: nn.Module = model
    return result
