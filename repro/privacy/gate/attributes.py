"""Tensors that a forward pass leaves on the model's modules, outside parameters and buffers.

``self.last = x`` keeps raw records in whatever is done with the model afterwards: saved, sent,
evaluated. A cache that every record leaves alike (a table of positions, a weight made of
parameters) keeps nothing of them and stays allowed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from repro.errors import InputError
from repro.privacy.gate.mixing import forward
from repro.privacy.gate.probe import Probe, alone
from repro.privacy.gate.state import OWN, Place
from repro.privacy.validation import same_contents

_DEEPEST = 3  # containers in containers


class Attributes:
    """What a model's modules hold besides parameters and buffers. As a context: put back as it
    was at the end.

    A parameter or buffer that a forward pass registers itself, or one that was None, counts.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.named_modules())
        state = [*model.parameters(), *model.buffers()]
        self._guarded = {id(value) for value in state}  # looked after by ``FrozenBuffers``
        self._before = [
            {name: value for _, name, value in self._held(module)} for _, module in self._modules
        ]
        values = [value for one in self._before for value in one.values()]
        self._contents = [(c, _elements(c)) for value in values for c in _containers(value)]
        found = self._all(values)
        self._keys = sorted(key for key, _ in found)
        self._tensors = [(t, t.detach().clone()) for _, t in found if not _dead(t)]

    def __enter__(self) -> Attributes:
        return self

    def __exit__(self, *exception: object) -> None:
        self.put_back()

    def now(self) -> dict[Place, list[Tensor]]:
        """Copies of all tensors that stand there."""
        return {
            (module_name, name): [t.detach().clone() for _, t in self._all([value]) if not _dead(t)]
            for module_name, module in self._modules
            for _, name, value in self._held(module)
        }

    def changed(self) -> bool:
        """Whether other tensors stand there than before, or other numbers in them."""
        values = [value for _, module in self._modules for _, _, value in self._held(module)]
        if sorted(key for key, _ in self._all(values)) != self._keys:
            return True
        return any(not same_contents(tensor, before) for tensor, before in self._tensors)

    def put_back(self) -> None:
        for (_, module), before in zip(self._modules, self._before, strict=True):
            for holder, name, value in list(self._held(module)):
                if name not in before:
                    del holder[name]
                elif value is not before[name]:
                    holder[name] = before[name]
            registered = {*module._parameters, *module._buffers, *module._modules}
            for name in before.keys() - vars(module).keys() - registered:
                vars(module)[name] = before[name]
        for container, elements in self._contents:
            _refill(container, elements)
        for tensor, earlier in self._tensors:
            if not same_contents(tensor, earlier):
                tensor.detach().copy_(earlier)

    def _held(self, module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
        """(where, name, value) of what is looked at on one module."""
        for name, value in vars(module).items():
            if name not in OWN:
                yield vars(module), name, value
        registered: list[dict[str, Any]] = [module._parameters, module._buffers]
        for names in registered:
            for name, value in names.items():
                if id(value) not in self._guarded:
                    yield names, name, value

    def _all(self, values: list[Any]) -> list[tuple[int, Tensor]]:
        found = [pair for value in values for pair in _tensors(value)]
        return [(key, tensor) for key, tensor in found if key not in self._guarded]


def refuse_kept_records(probe: Probe) -> None:
    """Raise InputError for a tensor that a pass leaves on a module and that tells one record, or
    one number of records, from another."""
    passes: list[Callable[[], Any]] = [
        lambda: alone(probe, 0),
        lambda: alone(probe, 1),
        lambda: forward(probe),
    ]
    left: list[dict[Place, list[Tensor]]] = []
    for one in passes:
        with Attributes(probe.model) as attributes:
            one()
            left.append(attributes.now())
    for other in left[1:]:
        for place in {**left[0], **other}:
            if not _alike(left[0].get(place, []), other.get(place, [])):
                name, attribute = place
                raise InputError(
                    f"layer {name or '(the model itself)'}",
                    f"a forward pass that keeps records in its attribute {attribute!r}",
                    "nothing of records left on modules: return it, or set it to None at the end",
                )


def _alike(ones: list[Tensor], others: list[Tensor]) -> bool:
    return len(ones) == len(others) and all(map(same_contents, ones, others))


def _dead(tensor: Tensor) -> bool:
    """Whether this is what a pass under ``torch.func`` leaves behind, which cannot be read."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _tensors(value: Any) -> Iterator[tuple[int, Tensor]]:
    """All tensors and numpy arrays in a value, each with the identity of what holds it."""
    for one in _inside(value):
        if isinstance(one, Tensor) and not is_lazy(one):
            yield id(one), one
        elif isinstance(one, np.ndarray) and one.dtype.kind in "biufc":
            yield id(one), torch.from_numpy(np.ascontiguousarray(one))


def _containers(value: Any) -> Iterator[Any]:
    """All containers in a value that can be changed in place."""
    return (one for one in _inside(value) if isinstance(one, (list, set, deque, dict)))


def _inside(value: Any, depth: int = 0) -> Iterator[Any]:
    """A value, and all that is in the containers in it."""
    yield value
    if depth < _DEEPEST and isinstance(value, (list, tuple, set, deque, dict)):
        for element in list(value.values() if isinstance(value, dict) else value):
            yield from _inside(element, depth + 1)


def _elements(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _refill(container: Any, elements: Any) -> None:
    if _identities(_elements(container)) != _identities(elements):
        container.clear()
        if isinstance(container, (dict, set)):
            container.update(elements)
        else:
            container.extend(elements)


def _identities(elements: Any) -> list[int]:
    values = elements.values() if isinstance(elements, dict) else ()
    return [*map(id, elements), *map(id, values)]
