"""A model called with other parameters and buffers than its own, and left as it was.

``torch.func.functional_call`` restores a layer that is registered under two names wrongly: it
swaps the layer's parameters once a name and puts its own replacement back for the second
(pytorch issue 164759). Here every module is visited once, and what is exchanged are its registries
(the dictionaries that hold its parameters and buffers), not their entries, so that putting them
back brings the very objects under the very names in the same order, whatever the pass did.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

_T = TypeVar("_T")

_TENSORS = ("_parameters", "_buffers")
#: Where a module's forward hooks are; with ``hooks`` those that are put on meanwhile go again.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
#: What a recurrent layer keeps of its parameters besides (``nn.RNNBase``).
_RECURRENT = ("_flat_weights", "_flat_weight_refs")


def call_holding(
    model: nn.Module, values: dict[str, Tensor], call: Callable[[], _T], *, hooks: bool = False
) -> _T:
    """``call()`` while the model's parameters and buffers of these names are these values.

    values: name -> tensor, by any name of it (``named_parameters(remove_duplicate=False)``). A
        parameter shared by several names or layers has the value under all of them. Where the
        pass puts another tensor into the place of one (``self.mean = …``), it is found here
        afterwards, as if it had been written to.
    hooks: also take away again the forward hooks that ``call`` puts on modules.

    What was not given keeps its own value. Afterwards every module has the registries it had,
    with the same objects in the same order, after an exception and an interrupt too; only what a
    pass that ended well has registered anew stays (``repro.privacy.gate`` refuses it if it is of
    records).
    """
    names = {id(tensor): name for name, tensor in _all_named(model) if name in values}
    modules = list(model.modules())
    kinds = (*_TENSORS, *_RECURRENT, *(_HOOKS if hooks else ()))
    before = [{kind: vars(m)[kind] for kind in kinds if kind in vars(m)} for m in modules]
    during = [{kind: held.copy() for kind, held in one.items()} for one in before]
    for registry in _registries(during):
        for name, tensor in registry.items():
            if id(tensor) in names:
                registry[name] = values[names[id(tensor)]]
    attributes = [vars(module) for module in modules]
    # An interrupt is only raised between two steps of the interpreter, and each of these two is
    # one: the whole loop runs in C, so no interrupt finds a model that is half exchanged.
    update: Callable[[dict[str, Any], dict[str, Any]], None] = dict.update
    exchange, restore = map(update, attributes, during), map(update, attributes, before)
    run_through = deque[Any](maxlen=0).extend
    try:
        run_through(exchange)
        result = call()
        _note_changes(before, during, names, values)
    finally:
        run_through(restore)
    return result


def _all_named(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )


def _registries(modules: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (one[kind] for one in modules for kind in _TENSORS)


def _note_changes(
    before: list[dict[str, Any]],
    during: list[dict[str, Any]],
    names: Mapping[int, str],
    values: dict[str, Tensor],
) -> None:
    """Replaced tensors into ``values``; new ones, and what took the place of None, to the model."""
    given = dict(values)
    for own, held in zip(_registries(before), _registries(during), strict=True):
        for local, tensor in held.items():
            earlier = own.get(local)
            name = names.get(id(earlier))
            if earlier is None and tensor is not None:
                own[local] = tensor
            elif name is not None and isinstance(tensor, Tensor) and tensor is not given[name]:
                values[name] = tensor
