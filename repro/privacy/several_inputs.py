"""Records whose input is several tensors (token ids and their mask), for models that take them so.

The engines, and the checks that choose one, take one tensor with a row for each record. For such
records that tensor holds the rows' **numbers**, and ``SeveralInputs``, which stands in the model's
place, looks the rows up. A record's number leads to that record alone, so its gradient is what the
model makes of it alone, and companions in the checks are always real records: made-up ids might
be none. Only ``vmap`` is used, which never shows the model more than one record: what made-up
extreme records would find out about a whole-batch engine is not found out here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import InputError

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def as_inputs(value: Any) -> Inputs | None:
    """A batch's inputs: a tensor; a tuple or list of them, which the model takes one after
    another; or a dict, which it takes by name (here in alphabetical order). None for anything
    else."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        named = dict(sorted(value.items(), key=lambda item: str(item[0])))
        fits = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in named.items())
        return named if named and fits else None
    if isinstance(value, (tuple, list)) and value:
        return tuple(value) if all(isinstance(part, Tensor) for part in value) else None
    return None


def tensors_of(inputs: Inputs) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values() if isinstance(inputs, dict) else inputs)


def like(inputs: Inputs, tensors: list[Tensor]) -> Inputs:
    """``tensors`` in the places that ``inputs`` has them in."""
    if isinstance(inputs, Tensor):
        (only,) = tensors
        return only
    if isinstance(inputs, dict):
        return dict(zip(inputs, tensors, strict=True))
    return tuple(tensors)


class _Held:
    """Where the rows stand meanwhile: no attribute of the model, which is searched for records."""

    inputs: Inputs | None = None


class SeveralInputs(nn.Module):
    """forward: numbers of rows (b,) -> what ``model`` makes of these rows of the held inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self._held = model, _Held()

    @contextmanager
    def holding(self, inputs: Inputs) -> Iterator[Tensor]:
        """The numbers of these records, (B,) int64, good until the end of this context."""
        first = tensors_of(inputs)[0]
        self._held.inputs = inputs
        try:
            yield torch.arange(len(first), device=first.device)
        finally:
            self._held.inputs = None

    def forward(self, rows: Tensor) -> Any:
        inputs = self._held.inputs
        if isinstance(inputs, dict):
            return self.model(**{name: tensor[rows] for name, tensor in inputs.items()})
        assert isinstance(inputs, tuple)
        return self.model(*(tensor[rows] for tensor in inputs))


@contextmanager
def one_tensor(model: nn.Module, inputs: Inputs) -> Iterator[Tensor]:
    """``inputs`` as the engines take them for ``model``: the tensor itself, or rows' numbers."""
    if isinstance(model, SeveralInputs):
        with model.holding(inputs) as rows:
            yield rows
    else:
        assert isinstance(inputs, Tensor)
        yield inputs


def taking(model: nn.Module, inputs: Inputs, engine: str) -> tuple[nn.Module, str]:
    """``model`` as it takes such inputs, and the engine asked for."""
    if isinstance(inputs, Tensor):
        return model, engine
    if engine not in ("auto", "vmap"):
        raise InputError("engine", engine, "auto or vmap for records of several input tensors")
    return SeveralInputs(model), "vmap"
