"""From settings to the part of a model that is trained, and to what that part takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from repro.data import Split
from repro.errors import InputError
from repro.federated.features import FixedFeatures, LabelledFeatures, fixed_features
from repro.federated.images import LabelledImages
from repro.federated.whitening import RawFeatures, Whitened, Whitening
from repro.kernels.api import use_on_cuda
from repro.models.mixed_precision import in_precision
from repro.models.registry import build_model
from repro.randomness import RootSeed
from repro.runs.settings import RunSettings

# A split -> what the trained part takes; a folder keeps fixed features, None: nothing is kept.
Labelled = Callable[[Split, Path | None], LabelledImages]


def trained_part(
    settings: RunSettings,
    *,
    channels: int,
    num_classes: int,
    seed: RootSeed,
    device: str | None = None,
    drawn: str = "cells",
    whitening: Whitening | None = None,
) -> tuple[nn.Module, Labelled, Whitened | None]:
    """What is trained, initialised by ``seed``, on ``device`` (None: CUDA if there is any); what
    makes its inputs; and what whitens them, if anything does.

    channels: of the images. drawn: which drawn images features are whitened by, a name in
    ``repro.federated.whitening``; whitening: made of them already. Raises InputError for a
    precision that the model has not.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cuda":
        use_on_cuda()
    model = build_model(settings.model, in_channels=channels, num_classes=num_classes, seed=seed)
    whitened = None
    if isinstance(model, RawFeatures):
        model = whitened = Whitened(model, channels, drawn, whitening)
    labelled = _labeller(model, where)
    if isinstance(model, FixedFeatures) and settings.precision != "float32":
        raise InputError("precision", settings.precision, "float32 for a model of fixed features")
    model = model.head if isinstance(model, FixedFeatures) else model
    return in_precision(model, settings.precision, where).to(where), labelled, whitened


def _labeller(model: nn.Module, device: torch.device) -> Labelled:
    def labelled(split: Split, folder: Path | None) -> LabelledImages:
        if isinstance(model, FixedFeatures):
            features = fixed_features(model, split.images, folder)
            return LabelledFeatures.of(features, split.labels, device)
        return LabelledImages.from_arrays(split.images, split.labels, device)

    return labelled
