"""Parameters used outside their own layers, seen while the forward pass runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from repro.privacy.engines.base import Unsupported


class StrayUse(TorchFunctionMode):
    """Raises ``Unsupported`` for a parameter used where no layer's rule would see its gradient.

    Attributes that are tensors too (``weight.T``, ``weight.mT``) are such uses; what is read
    without gradients (``weight.shape``, ``weight.data``, anything under ``no_grad``) is not.
    """

    def __init__(self, *watched: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._watched = {id(value): name for group in watched for name, value in group.items()}
        self._depth = 0

    def enter_layer(self) -> None:
        self._depth += 1

    def leave_layer(self) -> None:
        self._depth -= 1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._depth or not torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            result = func(*args, **(kwargs or {}))
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            if attribute not in ("data", "grad") and isinstance(result, Tensor):
                self._refuse(list(args), f".{attribute}")
            return result
        self._refuse([*args, *(kwargs or {}).values()], name)
        return func(*args, **(kwargs or {}))

    def _refuse(self, values: list[Any], name: str) -> None:
        for value in _flatten(values):
            if id(value) in self._watched:
                raise Unsupported(
                    f"parameter {self._watched[id(value)]}",
                    f"a use outside its own layer ({name})",
                    "engine='vmap' for this model",
                )


def _flatten(values: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        flat.extend(value) if isinstance(value, (list, tuple)) else flat.append(value)
    return flat
