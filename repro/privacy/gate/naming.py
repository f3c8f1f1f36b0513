"""Exceptions of a model's passes as one line that names the layer they come from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from repro.errors import InputError
from repro.privacy.holding import call_holding
from repro.privacy.validation import said

_T = TypeVar("_T")


def named(model: nn.Module, what: str, call: Callable[[], _T]) -> _T:
    """``call()``, its exceptions as InputErrors that name the layer they come from."""
    inside: list[tuple[str, nn.Module]] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda module, args: inside.append((name, module))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        inside.pop()

    def again() -> None:
        for name, module in model.named_modules():
            module.register_forward_pre_hook(enter(name))
            module.register_forward_hook(leave)
        call()

    try:
        return call()
    except InputError:
        raise
    except Exception as problem:
        with contextlib.suppress(Exception):  # the same again, to see where
            call_holding(model, {}, again, hooks=True)
        name, module = inside[-1] if inside else ("", model)
        raise InputError(
            f"layer {name}" if name else "model",
            type(module).__name__,
            f"one that {what} can differentiate record by record, not {said(problem)}",
        ) from problem
