"""Whether an engine's norms and clipped sum are those of plain autograd."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from repro.privacy.batch import Batch
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ClippedSum, Engine
from repro.privacy.gate.probe import Alone, Probe
from repro.privacy.gate.randomness import fixed_randomness
from repro.privacy.validation import trainable_parameters

NOTHING_FINITE = "no record has a finite gradient to compare"


@dataclass(frozen=True)
class Tolerance:
    """relative: to the value itself. floor: to the largest value, for what cancels to nothing."""

    relative: float
    floor: float

    @classmethod
    def of(cls, batch: Batch, seen: Set[torch.dtype]) -> Tolerance:
        """By the coarsest type of the model's parameters and of what ``seen`` names: the types that
        a forward pass made (``TypesMade``), which may round where the parameters do not."""
        parameters = trainable_parameters(batch.model).values()
        device = next(iter(parameters)).device.type
        types = {p.dtype for p in parameters} | seen
        if torch.bfloat16 in types:
            return cls(0.1, 1e-2)
        if torch.float16 in types:
            return cls(0.03, 3e-3)
        if torch.float32 not in types:
            return cls(1e-6, 1e-9)
        return cls(1e-2, 1e-3) if device == "cuda" else cls(1e-3, 1e-5)  # TF32, perhaps


def disagreement(engine: Engine, probe: Probe, found: Sequence[Alone]) -> str | None:
    """What differs between the engine on these records and autograd on each, or None.

    Norms record by record, and the clipped sum parameter by parameter, at a clip norm that
    clips half of the records.
    """
    tolerance = Tolerance.of(probe, found[0].types)
    norms = [_norm(one.gradients.values()) for one in found]
    finite = sorted(norm for norm in norms if math.isfinite(norm))
    if not finite:
        return NOTHING_FINITE
    middle = finite[len(finite) // 2] or finite[-1] or 1.0
    clip_norm = min(max(middle, 1e-15), 1e15)
    summed = measured(engine, replace(probe, clipping=Clipping(clip_norm)))
    for record, (norm, theirs) in enumerate(zip(norms, summed.norms.tolist(), strict=True)):
        allowed = tolerance.relative * norm + tolerance.floor * finite[-1]
        if math.isfinite(norm) and not abs(theirs - norm) <= allowed:
            return f"the gradient norm of record {record} is off by {_percent(theirs, norm)}"
    factors = [min(1.0, clip_norm / n) if n else 1.0 for n in norms]
    return _sums_differ(summed, probe, found, norms, factors, tolerance)


def measured(engine: Engine, batch: Probe) -> ClippedSum:
    """The engine's sum under the randomness that each record has alone."""
    # Book-keeping folds views into the records, vmap keeps them inside.
    folded = engine.name == "bookkeeping"
    rows = (len(batch) * batch.views,) if folded else (len(batch), batch.views)
    with fixed_randomness(rows, batch.inputs.device, needed=batch.random):
        return engine.clipped_sum(batch)


def _sums_differ(
    summed: ClippedSum,
    probe: Batch,
    found: Sequence[Alone],
    norms: Sequence[float],
    factors: Sequence[float],
    tolerance: Tolerance,
) -> str | None:
    parameters = trainable_parameters(probe.model)
    used = [
        (f, one.gradients)
        for f, one, n in zip(factors, found, norms, strict=True)
        if math.isfinite(n)
    ]
    whole = sum(f * n for f, n in zip(factors, norms, strict=True) if math.isfinite(n))
    pieces = summed.total.split([p.numel() for p in parameters.values()])
    for name, piece in zip(parameters, pieces, strict=True):
        parts = [f * own[name].flatten().to(piece.dtype) for f, own in used if name in own]
        expected = torch.stack(parts).sum(dim=0) if parts else torch.zeros_like(piece)
        size = sum(float(part.norm()) for part in parts)
        error = float((piece - expected).norm())
        if not error <= tolerance.relative * size + tolerance.floor * whole:
            return f"the gradient of {name} is off by {_percent(size + error, size)}"
    return None


def _norm(gradients: Iterable[Tensor]) -> float:
    norms = [float(torch.linalg.vector_norm(g, dtype=torch.float64)) for g in gradients]
    return math.hypot(*norms)


def _percent(value: float, right: float) -> str:
    return f"{100 * abs(value / right - 1):.2g} %" if right else "everything"
