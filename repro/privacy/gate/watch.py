"""Later looks at an engine that has passed, at the sizes and in the steps that really run.

The gate tries a few records at the start. Here, in every step, one record of the batch goes
through the model once more, alone; in one of 32 steps all of them do, half among other companions.
So mixing that begins later (at some size, by a global variable, with the hundredth pass) is seen
before the step is released, or, where it moves outputs by less than a hundredth, or gradients
alone, soon after.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from repro.errors import InputError
from repro.privacy.batch import Batch
from repro.privacy.engines import ENGINES, ClippedSum, Engine
from repro.privacy.gate.attributes import Attributes
from repro.privacy.gate.disturbance import gradients_kept_apart
from repro.privacy.gate.mixing import Mixes, as_alone, forward, kept_apart, refuse
from repro.privacy.gate.probe import Probe, detached
from repro.privacy.gate.state import Place
from repro.privacy.holding import call_holding

FAST = "bookkeeping"
EVERY = 32  # sums, on average, between two that are tried in depth

# Which steps and records are looked at: the same in every process that does the same.
_turns = random.Random(0)


class Voided(InputError):
    """Records mixed in a state of the model that had passed: what was released with it before is
    not covered by any guarantee."""


@dataclass
class Tried:
    """What is known of a choice besides its engine; goes with it to copies of the model.

    together: most records that were tried in one batch. random: whether passes draw random
    numbers. mixes: the model mixes records, so that each must be taken alone. passes_change: what
    a pass itself changes on modules. sums: made with it so far. failed: why it may not be used
    any more.
    """

    together: int = 0
    random: bool = True
    mixes: bool = False
    passes_change: frozenset[Place] = field(default_factory=frozenset)
    sums: int = 0
    failed: str | None = None


def refuse_mixing_at(batch: Batch, size: int, random: bool) -> None:
    """Raise ``Mixes`` if records mix in a batch of ``size``: of these, again and again where they
    are fewer. Three forward passes, one of them of one record, and two of the fast engine's.

    random: whether passes may draw random numbers."""
    if size < 2:
        return
    rows = torch.arange(size, device=batch.inputs.device) % len(batch)
    probe = Probe.of(batch, random)
    probe = replace(probe, inputs=batch.inputs[rows], targets=batch.targets[rows])
    with Attributes(batch.model):
        together = forward(probe)
        record, half = _turns.randrange(size), _half(size)
        right = (
            as_alone(probe, record, together)
            and kept_apart(probe, half, 0, together)
            and gradients_kept_apart(ENGINES[FAST], probe, half)
        )
    if not right:
        refuse(probe, f"beside it, also in a batch of {size}", Mixes)


def watched_sum(engine: Engine, batch: Batch, tried: Tried) -> ClippedSum:
    """The engine's sum, and a look at whether it is of records that were kept apart.

    Raises ``Mixes`` where they were not, before anything is released: the step can be taken by
    the reference engine. Raises ``Voided`` where this shows only in depth, so that sums before
    this one may have mixed as well.
    """
    if engine.name != FAST or len(batch) < 2:
        return engine.clipped_sum(batch)
    mixed_here = f"beside it, also in a batch of {len(batch)}"
    record, in_depth = _turns.randrange(len(batch)), _turns.random() * EVERY < 1
    if tried.random:
        summed = engine.clipped_sum(batch)
    else:
        summed, outputs = _heard(engine, batch)
        with Attributes(batch.model):
            right = as_alone(Probe.of(batch, random=False), record, outputs)
        if not right:
            refuse(batch, mixed_here, Mixes)
    probe = Probe.of(batch, tried.random)
    if in_depth and not _kept_apart(engine, probe, None if tried.random else summed.norms):
        if not tried.sums:
            refuse(batch, mixed_here, Mixes)
        tried.failed = f"records mixed in a batch of {len(batch)}"
        raise voided(batch.model, tried)
    tried.sums += 1
    return summed


def voided(model: nn.Module, tried: Tried) -> Voided:
    return Voided(
        "model",
        type(model).__name__,
        "one whose output for a record is the same whatever records stand beside it: it passed "
        f"before, now {tried.failed}, so what was released with it before has NO guarantee",
    )


def _kept_apart(engine: Engine, batch: Probe, norms: Tensor | None) -> bool:
    """A random half of the records beside others than there are: their outputs and gradients."""
    seed, half = _turns.randrange(1000), _half(len(batch))
    with Attributes(batch.model):
        return kept_apart(batch, half, seed, forward(batch, seed)) and gradients_kept_apart(
            engine, batch, half, norms
        )


def _half(size: int) -> list[int]:
    return sorted(_turns.sample(range(size), size // 2))


def _heard(engine: Engine, batch: Batch) -> tuple[ClippedSum, Any]:
    """The sum, and the outputs (B · views, …) that the engine's pass has made it of."""
    outputs: list[Any] = []

    def note(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(detached(output) if isinstance(output, Tensor) else None)

    def call() -> ClippedSum:
        batch.model.register_forward_hook(note)
        return engine.clipped_sum(batch)

    return call_holding(batch.model, {}, call, hooks=True), outputs[0]
