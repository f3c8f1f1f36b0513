"""What a choice of engine was found for: all of a model that can be seen without running it.

Hooks, a replaced ``forward``, flags and attributes of modules, the code of their classes, frozen
parameters and buffers, autocast. A choice found for another state is not used again. What no look
at the model shows (a global variable that its code reads, what a C extension does) is left to the
comparisons of later steps (``repro.privacy.gate.watch``).
"""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as everywhere

_DEEPEST, _LONGEST = 3, 64  # containers in containers, and elements of one that are looked at
OWN = frozenset(vars(nn.Module()))  # hooks, mode, … of every module
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = (bool, int, str, bytes, type(None), torch.dtype, torch.device, torch.layout)

Place = tuple[str, str]  # name of the module, and of what is on it


def state_of(model: nn.Module, without: frozenset[Place] = frozenset()) -> tuple[Any, ...]:
    """A value that is equal for two states of one model that look alike; it keeps no tensor.

    without: places that a forward pass itself changes (a counter, a cache).
    """
    seen = tuple((place, token) for place, token in _places(model) if place not in without)
    classes = {type(module) for module in model.modules()}
    return (seen, tuple(_class(one) for one in sorted(classes, key=id)), _surroundings())


def attributes_of(model: nn.Module) -> dict[Place, Any]:
    """The same, by place, of what a forward pass may set on modules."""
    return dict(_places(model))


def _places(model: nn.Module) -> Iterator[tuple[Place, Any]]:
    for path, module in model.named_modules():
        yield (path, ""), (id(module), id(type(module)), module.training)
        for kind in HOOKS:
            hooks = vars(module).get(kind)
            if hooks:  # numbers of handles are never used again
                yield (path, kind), tuple((key, _token(h)) for key, h in hooks.items())
        for name, parameter in module._parameters.items():
            yield (path, name), _parameter(parameter)
        for name, buffer in module._buffers.items():
            yield (path, name), _token(buffer)
        for name, value in vars(module).items():
            if name not in OWN:
                yield (path, name), _token(value)


def _parameter(parameter: nn.Parameter | None) -> Any:
    """Trained ones change with every step, others only if somebody changes them."""
    if parameter is None:
        return None
    if not parameter.requires_grad:
        return _token(parameter)
    return id(parameter), parameter.dtype, parameter.device


def _token(value: Any, depth: int = 0) -> Any:
    """Equal for what is, or looks, the same as before."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, (float, complex)):
        return repr(value)  # NaN is not equal to itself
    if isinstance(value, Tensor):
        return id(value), _flag(value)
    if isinstance(value, np.ndarray):
        return id(value), value.shape, value.tobytes() if value.nbytes <= 4096 else None
    if isinstance(value, nn.Module):
        return id(value), value.training
    if isinstance(value, types.MethodType):
        return id(value.__self__), _token(value.__func__, depth)
    if isinstance(value, functools.partial):
        return _token(value.func, depth), _token([value.args, value.keywords], depth + 1)
    if isinstance(value, types.FunctionType):
        return _function(value, depth)
    if depth < _DEEPEST and isinstance(value, (list, tuple, set, frozenset, deque, dict)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        first = [pair for pair, _ in zip(pairs, range(_LONGEST), strict=False)]
        inside = tuple((_token(k, depth + 1), _token(v, depth + 1)) for k, v in first)
        return type(value), len(value), inside
    inside = ()
    if depth < _DEEPEST and not isinstance(value, (type, types.ModuleType)):
        held = list(getattr(value, "__dict__", {}).items())[:_LONGEST]
        inside = tuple((name, _token(one, depth + 1)) for name, one in held)
    return id(type(value)), id(value), inside


def _function(function: types.FunctionType, depth: int) -> Any:
    """Its code and what it holds. Code objects are kept, so none takes another's place."""
    if depth >= _DEEPEST:
        return function.__code__
    cells = [_content(cell) for cell in function.__closure__ or ()]
    held = [function.__defaults__, function.__kwdefaults__, *cells]
    return function.__code__, tuple(_token(one, depth + 1) for one in held)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _flag(tensor: Tensor) -> Any:
    """The number of a tensor of one, which may be a switch. Larger ones are known by themselves
    alone: a state that is loaded into them makes no other model."""
    dead = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    if dead or tensor.numel() != 1 or tensor.device.type != "cpu":
        return None
    return repr(tensor.item())


def _class(one: type) -> Any:
    """Functions and flags on a class of the user's; torch's own do not change."""
    return id(one), tuple(
        (name, _token(value, _DEEPEST))
        for base in one.__mro__
        if not base.__module__.startswith("torch.") and base is not object
        for name, value in vars(base).items()
        if isinstance(value, (types.FunctionType, float, *_PLAIN))
    )


def _surroundings() -> tuple[Any, ...]:
    """What changes the numbers of every model: autocast, default type, hooks on all modules."""
    return (
        tuple(
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda")
        ),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        *(
            tuple(getattr(everywhere, f"_global{kind}"))
            for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        ),
    )
