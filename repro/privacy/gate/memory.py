"""What was found for a model, as long as the model lives and stays as it was."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from repro.privacy.batch import Batch
from repro.privacy.gate.state import Place, state_of

_T = TypeVar("_T")
_MOST = 16  # states of one model

_Key = tuple[tuple[Any, ...], Any]


@dataclass
class _OfModel(Generic[_T]):
    passes_change: frozenset[Place] = frozenset()
    # A loss is held weakly too: it may well refer to the model.
    known: OrderedDict[_Key, tuple[Callable[[], Any], _T]] = field(default_factory=OrderedDict)


class Memory(Generic[_T]):
    """Per model, loss, kind of records and engine asked for: what was found for this very state."""

    def __init__(self) -> None:
        self._models: weakref.WeakKeyDictionary[nn.Module, _OfModel[_T]] = (
            weakref.WeakKeyDictionary()
        )

    def recall(self, batch: Batch, engine: str) -> _T | None:
        own = self._models.get(batch.model)
        if own is None:
            return None
        held, found = own.known.get(self._key(batch, engine, own), (None, None))
        return found if held is not None and held() == batch.loss_fn else None

    def passed_before(self, batch: Batch, engine: str) -> bool:
        """Whether something was found for such records in some state of this model."""
        own = self._models.get(batch.model)
        return own is not None and any(key[0] == _kind(batch, engine) for key in own.known)

    def keep(
        self, batch: Batch, engine: str, found: _T, passes_change: frozenset[Place] = frozenset()
    ) -> None:
        """passes_change: places on the model that differ after every forward pass anyway."""
        loss_fn = batch.loss_fn
        reference = weakref.WeakMethod if isinstance(loss_fn, MethodType) else weakref.ref
        try:
            held: Callable[[], Any] = reference(loss_fn)
        except TypeError:  # a builtin or slotted object: tried again every time
            return
        own = self._models.setdefault(batch.model, _OfModel())
        own.passes_change |= passes_change
        key = self._key(batch, engine, own)
        own.known[key] = (held, found)
        own.known.move_to_end(key)
        while len(own.known) > _MOST:
            own.known.popitem(last=False)

    def _key(self, batch: Batch, engine: str, own: _OfModel[_T]) -> _Key:
        loss = batch.loss_fn
        of_loss = state_of(loss) if isinstance(loss, nn.Module) else None
        return _kind(batch, engine), (state_of(batch.model, own.passes_change), of_loss)


def _kind(batch: Batch, engine: str) -> tuple[Any, ...]:
    """What is asked: engine, loss, kind of records, modes, which parameters are trained."""
    loss = id(getattr(batch.loss_fn, "__func__", batch.loss_fn))  # a bound method is new each time
    device = batch.inputs.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    shapes = [(tuple(t.shape[1:]), t.dtype) for t in (batch.inputs, batch.targets)]
    layers = tuple((type(m), m.training) for m in batch.model.modules())
    wanted = tuple((p.requires_grad, p.dtype, p.device) for p in batch.model.parameters())
    return (engine, batch.views, autocast, loss, *shapes, layers, wanted)
