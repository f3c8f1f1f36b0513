"""Whether an engine's gradient of a record depends on the records beside it, extreme or not.

A guard may act on the whole batch on its way there, a hook on the way back, and only where some
record is extreme, or where there are many. An engine that treats each record alone does not see
any of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from repro.privacy.clipping import Clipping
from repro.privacy.engines import Engine
from repro.privacy.engines.base import NotFinite
from repro.privacy.gate.agreement import Tolerance, measured
from repro.privacy.gate.mixing import beside, extremes, relatives
from repro.privacy.gate.probe import Probe

_LOUD = 1e10


def disturbance(engine: Engine, probe: Probe, types: Set[torch.dtype]) -> str | None:
    """What changes in the gradients of every other record when those beside them have extreme
    inputs, targets or gradients; or None. types: what its forward pass made."""
    kept = range(0, len(probe), 2)
    tolerance = Tolerance.of(probe, types)
    probe = replace(probe, clipping=Clipping(1.0))
    # Gradients of 0 and NaN add nothing: norms and sum are of the others.
    base = measured(engine, _times(0.0, probe, kept))
    norms = base.norms[list(kept)]
    undefined = measured(engine, _times(math.nan, probe, kept))
    found = measured(engine, _times(_LOUD, probe, kept))
    if not (
        _alike(undefined.total, base.total, tolerance)
        and _alike(undefined.norms[list(kept)], norms, tolerance)
        and _alike(found.norms[list(kept)], norms, tolerance)
    ):
        return "the gradient of a record depends on extreme gradients of those beside it"
    for other in _others(probe, kept):
        try:
            found = measured(engine, other)
        except NotFinite:
            raise
        except Exception:
            continue  # records that the model or the loss does not take at all
        if not _alike(found.norms[list(kept)], norms, tolerance):
            return "the gradient of a record depends on extreme records beside it"
    return None


def gradients_kept_apart(
    engine: Engine, batch: Probe, kept: Sequence[int], norms: Tensor | None = None
) -> bool:
    """Whether, in a batch of just this size, gradient norms of ``kept`` are the same with all
    others replaced: what a pass mixes on its way back moves no output.

    norms (B,): the engine's for this batch, where they hang on no random numbers.
    """
    inputs = beside(batch.inputs, relatives(batch.inputs), kept)
    try:
        if norms is None:
            norms = measured(engine, batch).norms
        found = measured(engine, replace(batch, inputs=inputs)).norms
    except NotFinite:
        raise
    except Exception:
        return True  # records that the model or the loss does not take at all
    places = list(kept)
    return _alike(found[places], norms[places], Tolerance.of(batch, frozenset()))


def _others(probe: Probe, kept: Sequence[int]) -> Iterator[Probe]:
    for inputs in extremes(probe.inputs, [_LOUD], []):
        yield replace(probe, inputs=beside(probe.inputs, inputs, kept))
    for targets in extremes(probe.targets, [_LOUD], []):
        yield replace(probe, targets=beside(probe.targets, targets, kept))


def _alike(found: Tensor, expected: Tensor, tolerance: Tolerance) -> bool:
    finite = expected.isfinite()
    size = float(expected[finite].abs().max()) if bool(finite.any()) else 0.0
    rtol, atol = tolerance.relative, tolerance.floor * size
    return bool(torch.isclose(found, expected, rtol=rtol, atol=atol)[finite].all())


def _times(factor: float, probe: Probe, kept: Sequence[int]) -> Probe:
    """The gradients of all records but ``kept`` times a factor, as a loss could have made them."""
    factors = torch.full((len(probe),), factor, device=probe.inputs.device)
    factors[list(kept)] = 1
    return replace(probe, model=_Louder(probe.model, factors.repeat_interleave(probe.views)))


class _Louder(nn.Module):
    def __init__(self, model: nn.Module, factors: Tensor) -> None:
        super().__init__()
        self.model, self._factors = model, factors

    def forward(self, inputs: Tensor) -> Any:
        outputs = self.model(inputs)
        return _Scaled.apply(outputs, self._factors) if isinstance(outputs, Tensor) else outputs


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, factors: Tensor) -> Tensor:
        ctx.save_for_backward(factors)
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (factors,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient * factors.to(gradient).view(-1, *[1] * (gradient.ndim - 1)), None
