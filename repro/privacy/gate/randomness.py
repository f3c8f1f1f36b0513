"""Randomness that is the same for a record alone and in any batch, so that the two can be compared.

Every random operation of a forward pass (dropout, noise layers, drawn masks) is done record by
record from the same seed, whoever stands beside the record; the k-th operation has the k-th seed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map


@contextmanager
def fixed_randomness(
    lead: tuple[int, ...], device: torch.device, seed: int = 0, *, needed: bool = True
) -> Iterator[FixedRandomness]:
    """All generators of torch, numpy and Python fixed inside, and restored afterwards.

    lead: the leading dimensions that count records (or records and views) in this pass.
    needed: False for passes that draw nothing: then nothing is done.
    """
    mode = FixedRandomness(lead, device, seed)
    if not needed:
        yield mode
        return
    with fixed_generators(device, seed):
        before = _drawn_so_far()
        with mode:
            yield mode
        mode.used = mode.draws > 0 or before != _drawn_so_far()


@contextmanager
def fixed_generators(device: torch.device, seed: int = 0) -> Iterator[None]:
    """The same without the part that does each record's operations on its own."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            # Not torch.manual_seed, which reseeds devices that nothing here restores.
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _drawn_so_far() -> tuple[object, ...]:
    """Where Python's and numpy's generators stand."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002
    return random.getstate(), state["state"]["key"].tobytes(), state["state"]["pos"]


class FixedRandomness(TorchDispatchMode):
    """Does every random operation once for each record, each time from the same seed."""

    def __init__(self, lead: tuple[int, ...], device: torch.device, seed: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lead, self.seed, self.draws, self.used = lead, seed * 1_000_003, 0, False
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.draws += 1
        if kwargs.get("generator") is not None:
            kwargs["generator"] = None  # a generator of the model's own must not move either
        # Under vmap the records lead alone where the views stand elsewhere.
        for lead in (self.lead, self.lead[:1]):
            if any(_leads(value, lead) for value in args):
                return self._by_record(func, args, kwargs, lead)
            if args and isinstance(args[0], (list, tuple)) and tuple(args[0][: len(lead)]) == lead:
                one = self._seeded(func, ([1, *args[0][len(lead) :]], *args[1:]), kwargs)
                return one.expand(args[0]).clone()
        return self._seeded(func, args, kwargs)

    def _by_record(self, func: Any, args: Any, kwargs: Any, lead: tuple[int, ...]) -> Any:
        results = []
        for place in itertools.product(*map(range, lead)):

            def own(value: Any, place: tuple[int, ...] = place) -> Any:
                return value[place].unsqueeze(0) if _leads(value, lead) else value

            results.append(self._seeded(func, tree_map(own, args), tree_map(own, kwargs)))
        if func._schema.is_mutable:
            return args[0]  # written through its rows
        if isinstance(results[0], Tensor):
            return torch.cat(results).unflatten(0, lead)
        return tuple(torch.cat(parts).unflatten(0, lead) for parts in zip(*results, strict=True))

    def _seeded(self, func: Any, args: Any, kwargs: Any) -> Any:
        torch.default_generator.manual_seed(self.seed + self.draws)
        if self._device.type == "cuda":
            torch.cuda.manual_seed(self.seed + self.draws)
        return func(*args, **kwargs)


def _leads(value: Any, lead: tuple[int, ...]) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape[: len(lead)]) == lead
