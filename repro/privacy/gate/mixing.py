"""Whether a record's output depends on the records beside it, or on those before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from repro.errors import InputError
from repro.privacy.batch import Batch
from repro.privacy.gate.agreement import Tolerance
from repro.privacy.gate.probe import Alone, Probe, TypesMade, alone, detached
from repro.privacy.gate.randomness import fixed_randomness
from repro.privacy.holding import call_holding
from repro.privacy.validation import FrozenBuffers

# A batch's size changes the order of float sums, so alone and together agree loosely only.
_LOOSE = 1e-2
_FURTHER_SEEDS = range(1, 8)  # a model that mixes at random, one time in two: 1/128 escape
# What a whole record may consist of, at worst: a guard for the batch, against overflow say, acts on
# such records only, and they make a small leak large.
_EXTREMES = (0.0, 1e4, -1e4, 1e10, -1e10, 1e30, -1e30, math.nan, math.inf, -math.inf)


class Mixes(InputError):
    """Records mix in a batch of this model: right is only an engine that takes each alone."""


def refuse_carried(probe: Probe, found: Sequence[Alone]) -> None:
    """Raise InputError for outputs that depend on the passes before, in any engine."""
    again = alone(probe, 0).outputs
    if not _same_leaves(tree_leaves(again), tree_leaves(found[0].outputs), 1e-6):
        refuse(probe, "before it", InputError)


def refuse_mixing(probe: Probe, found: Sequence[Alone]) -> None:
    """Raise ``Mixes`` if records mix, in the mode the model is in.

    Every record is compared alone and together, then among companions that are quite different;
    its random numbers are the same each time. A model that draws some is tried with more of them.
    """
    together = forward(probe)
    for record, one in enumerate(found):
        if not _same(together, one.outputs, record, probe, _LOOSE):
            refuse(probe, "beside it", Mixes)
    for record in range(len(probe)):
        if not kept_apart(probe, [record], 0, together):
            refuse(probe, "beside it", Mixes)
    if probe.random:
        for seed in _FURTHER_SEEDS:
            base = forward(probe, seed)
            for first in (0, 1):
                if not kept_apart(probe, range(first, len(probe), 2), seed, base):
                    refuse(probe, "beside it", Mixes)


def mixing_of_extremes(probe: Probe) -> str | None:
    """Whether extreme records, which the probe has none of, change the outputs of others.

    No reason to refuse the model: an engine that treats every record alone does not see it.
    """
    together = forward(probe)
    for number, others in enumerate(extremes(probe.inputs)):
        if not _unmoved(probe, others, together, range(number % 2, len(probe), 2), seed=0):
            return "the output for a record depends on extreme records beside it"
    return None


def extremes(
    inputs: Tensor, whole: Sequence[float] = _EXTREMES, single: Sequence[float] = _EXTREMES[-2:]
) -> Iterator[Tensor]:
    """As many records, each made of one extreme number or with one in a single place; nothing
    for inputs of integers, which are indices. Sums over a whole record of Inf may be NaN."""
    if not inputs.is_floating_point():
        return
    for value in whole:
        yield torch.full_like(inputs, value, dtype=torch.float64).to(inputs.dtype)
    for value in single:
        changed = inputs.clone(memory_format=torch.contiguous_format)
        changed.view(len(inputs), -1)[:, 0] = value
        yield changed


def beside(values: Tensor, others: Tensor, kept: Sequence[int]) -> Tensor:
    """``others`` with the rows ``kept`` of ``values``."""
    result = others.clone()
    result[list(kept)] = values[list(kept)]
    return result


def relatives(inputs: Tensor) -> Tensor:
    """Other records of the same kind, quite different from each that stands in their place."""
    others = inputs.flip(0).flip(-1) if inputs.ndim > 1 else inputs.flip(0)
    return -8 * others if others.is_floating_point() else others


def kept_apart(batch: Probe, kept: Sequence[int], seed: int, together: Any) -> bool:
    """Whether, in a batch of just this size, outputs of ``kept`` are the same with all others
    replaced; ``together``: what ``forward`` gives for the batch and seed."""
    return _unmoved(batch, relatives(batch.inputs), together, kept, seed)


def as_alone(batch: Probe, record: int, together: Any) -> bool:
    """Whether a record's outputs in ``together``, the batch's, are about those of it alone. One
    small forward pass; a second one where they differ and types may be the reason."""
    rows = slice(record, record + 1)
    one = replace(batch, inputs=batch.inputs[rows], targets=batch.targets[rows])
    if _same(together, forward(one), record, batch, _LOOSE):
        return True
    with TypesMade() as types:
        apart = forward(one)
    tolerance = max(_LOOSE, Tolerance.of(batch, types.seen).relative)
    return _same(together, apart, record, batch, tolerance)


def _unmoved(probe: Probe, others: Tensor, base: Any, kept: Sequence[int], seed: int) -> bool:
    """Whether outputs of ``kept`` are the same in the probe and with all others replaced; the
    same kernels run on the same shapes, so what differs is what came from the others."""
    inputs = beside(probe.inputs, others, kept)
    try:
        changed = forward(replace(probe, inputs=inputs), seed)
    except InputError:
        raise
    except Exception:
        return True  # records the model does not take at all
    epsilon = torch.finfo(probe.inputs.dtype if inputs.is_floating_point() else torch.float32).eps
    tolerance = min(0.05, 1000 * epsilon)
    return all(_same_rows(changed, base, record, probe, tolerance) for record in kept)


def draws_in_batch(probe: Probe) -> bool:
    """Whether a forward pass of all records together draws random numbers."""
    with fixed_randomness((len(probe) * probe.views,), probe.inputs.device) as randomness:
        forward(replace(probe, random=False))
    return randomness.used


@torch.enable_grad()
def forward(probe: Probe, seed: int = 0) -> Any:
    """The outputs for all records of the probe together."""
    rows = probe.rows()
    with (
        fixed_randomness((len(rows),), rows.device, seed, needed=probe.random),
        FrozenBuffers(probe.model) as buffers,
    ):
        return detached(call_holding(probe.model, buffers.copies, lambda: probe.model(rows)))


def _same(together: Any, apart: Any, record: int, probe: Batch, tolerance: float) -> bool:
    """One record's outputs in a batch's and alone, wherever the records' axis is."""
    leaves, own = tree_leaves(together), tree_leaves(apart)
    if len(leaves) != len(own):
        return False
    pairs = [
        (_part(a, axis, record, probe.views), b)
        for a, b in zip(leaves, own, strict=True)
        if (axis := _axis(a, b, probe)) is not None
    ]
    return _same_leaves([a for a, _ in pairs], [b for _, b in pairs], tolerance)


def _same_rows(one: Any, other: Any, record: int, probe: Batch, tolerance: float) -> bool:
    """One record's outputs in two batches of the same size."""
    rows = len(probe) * probe.views

    def parts(outputs: Any) -> list[Tensor]:
        return [
            _part(leaf, leaf.shape.index(rows), record, probe.views)
            for leaf in tree_leaves(outputs)
            if isinstance(leaf, Tensor) and rows in leaf.shape
        ]

    return _same_leaves(parts(one), parts(other), tolerance)


def _axis(together: Any, apart: Any, probe: Batch) -> int | None:
    """The one axis along which a batch's output is longer than a record's, by its number."""
    if not isinstance(together, Tensor) or not isinstance(apart, Tensor):
        return None
    if together.ndim != apart.ndim:
        return None
    differ = [i for i, (a, b) in enumerate(zip(together.shape, apart.shape, strict=True)) if a != b]
    rows = len(probe) * probe.views
    return differ[0] if len(differ) == 1 and together.shape[differ[0]] == rows else None


def _part(values: Tensor, axis: int, record: int, views: int) -> Tensor:
    return values.narrow(axis, record * views, views)


def _same_leaves(left: Sequence[Any], right: Sequence[Any], tolerance: float) -> bool:
    for a, b in zip(left, right, strict=True):
        if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape:
            continue
        finite = b[b.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        if not torch.allclose(a, b, rtol=tolerance, atol=0.1 * tolerance * scale, equal_nan=True):
            return False
    return True


def refuse(probe: Batch, where: str, kind: type[InputError]) -> NoReturn:
    """where: the records that an output depends on stand, "beside it" say."""
    raise kind(
        "model",
        type(probe.model).__name__,
        f"one whose output for a record is the same whatever records stand {where}",
    )
