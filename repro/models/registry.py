"""Models by name, initialised by a keyed seed."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import torch
from torch import nn

from repro.checks import check_choice
from repro.errors import InputError
from repro.randomness import RootSeed
from repro.runs.settings import ModelSettings

# name -> (module, class or factory taking in_channels, num_classes, width)
MODELS: dict[str, tuple[str, str]] = {
    "dpresnet": ("repro.models.dpresnet", "DPResNet"),
    "resnet9": ("repro.models.resnet9", "ResNet9"),
    "resnet18": ("repro.models.torchvision_resnet", "resnet18"),
    "scattering": ("repro.models.scattering", "ScatteringLinear"),
    "scattering-rings": ("repro.models.scattering_rings", "ScatteringRings"),
    "random-filters": ("repro.models.random_filters", "RandomFilterRings"),
    "turned-filters": ("repro.models.random_filters", "TurnedFilterRings"),
    "drawn-choice": ("repro.models.random_filters", "DrawnChoiceRings"),
    "backbone": ("repro.models.backbone", "BackboneRings"),
}

_GENERATOR = threading.Lock()  # torch's global one: a second thread would draw in between


def build_model(
    settings: ModelSettings,
    *,
    in_channels: int,
    num_classes: int,
    seed: RootSeed | None = None,
    **options: Any,
) -> nn.Module:
    """The model of ``settings``, PyTorch's default initialisation [code], channels-last.

    seed: initial weights are a function of it alone, and torch's global generator is left as it
        was; None uses that generator.
    """
    module, attribute = MODELS[check_choice("model", settings.name, MODELS)]
    varied = {name: getattr(settings, name) for name in ("normalisation", "downsampling", "skips")}
    if settings.name == "dpresnet":
        options |= varied
    elif any(value != getattr(ModelSettings, name) for name, value in varied.items()):
        raise InputError("model", settings.name, "dpresnet, the only one with variants")
    if settings.filters is not None:
        options["filters"] = settings.filters
    factory = getattr(importlib.import_module(module), attribute)
    with _GENERATOR, torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            # The processor's alone: torch.manual_seed would reset the user's CUDA generators too.
            torch.default_generator.manual_seed(seed.derive("initial weights") >> 1)
        model = factory(
            in_channels=in_channels, num_classes=num_classes, width=settings.width, **options
        )
    result: nn.Module = model.to(memory_format=torch.channels_last)
    return result
