"""Several models of one architecture as one: parameters stacked, under ``torch.func.vmap``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.modules.dropout import _DropoutNd

from repro.errors import InputError
from repro.privacy.holding import call_holding
from repro.privacy.validation import check_layers
from repro.typing import Float


def check_stackable(model: nn.Module) -> None:
    """Raise InputError for a model that mixes records (a padded batch would change it), draws
    random numbers, or has state besides its parameters."""
    check_layers(model)
    for name, layer in model.named_modules():
        if isinstance(layer, _DropoutNd):
            raise InputError("model", f"dropout {name}", "none where hospitals train together")
    for name, _ in model.named_buffers():
        raise InputError("model", f"buffer {name}", "no buffers where hospitals train together")


def stacked_parameters(models: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Name -> (models, *shape), detached."""
    own = [dict(model.named_parameters()) for model in models]
    return {name: torch.stack([values[name].detach() for values in own]) for name in own[0]}


def unstacked_vectors(
    vectors: Float[Tensor, "models size"], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Rows that hold all parameters of a model, as ``stacked_parameters`` gives them (views)."""
    pieces = vectors.split([shape.numel() for shape in shapes.values()], dim=1)
    return {
        name: piece.unflatten(1, shape)
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def call_stacked(model: nn.Module, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Each model's outputs (models, b, …) for its own inputs (models, b, …)."""

    def one(own: Mapping[str, Tensor], batch: Tensor) -> Any:
        return call_holding(model, dict(own), lambda: model(batch))

    outputs: Tensor = vmap(one)(weights, inputs)
    return outputs


def padded(parts: Sequence[Tensor]) -> Tensor:
    """(b_h, …) of several models as one (models, longest, …), filled up with zeros."""
    return nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
