"""Which engine a run uses, found by trying it, and kept while the model stays what it was."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from repro.checks import check_choice, check_count
from repro.errors import InputError
from repro.privacy.batch import Batch, LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ENGINES, Engine, Unsupported, choose
from repro.privacy.gate.agreement import NOTHING_FINITE, disagreement, measured
from repro.privacy.gate.attributes import Attributes, refuse_kept_records
from repro.privacy.gate.disturbance import disturbance
from repro.privacy.gate.memory import Memory
from repro.privacy.gate.mixing import (
    Mixes,
    draws_in_batch,
    mixing_of_extremes,
    refuse_carried,
    refuse_mixing,
)
from repro.privacy.gate.naming import named
from repro.privacy.gate.probe import (
    Alone,
    Probe,
    alone,
    in_double,
    modes_kept,
    probe_of,
    probe_sizes,
    records_alone,
)
from repro.privacy.gate.state import attributes_of
from repro.privacy.gate.watch import FAST, Tried, Voided, refuse_mixing_at, voided
from repro.privacy.validation import check_batch, check_loss, said, trainable_parameters

_REFERENCE = "vmap"


@dataclass(frozen=True)
class EngineChoice:
    """An engine that passed, to be used for a whole run.

    reason: why it is not the fast one, None if it is or was not asked for. It may quote
        differences that were measured on records without noise: not for release.
    """

    engine: Engine
    requested: str
    reason: str | None = None
    tried: Tried = field(default_factory=Tried, compare=False, repr=False)

    def after(self, problem: Exception) -> EngineChoice:
        """The reference engine, where ``auto`` chose the fast one and that failed; else raises."""
        unfit = self.requested != "auto" or self.engine.name != FAST
        if unfit or isinstance(problem, Voided):
            raise problem
        return EngineChoice(ENGINES[_REFERENCE], "auto", said(problem))


_MEMORY: Memory[EngineChoice] = Memory()


def check_engine(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    engine: str = "auto",
    views: int = 1,
    at_once: int | None = None,
) -> EngineChoice:
    """The engine to use for this model and loss, tried on a few of these records.

    model, loss_fn, inputs (B, …) or (B, views, …), targets (B, …): as in
        ``per_sample_gradients``, in the mode (training or evaluation) the steps will run in.
        The first few records are looked at, and none of what is computed leaves this function
        but the choice; B may be 0, and then nothing is tried.
    engine: ``auto`` (book-keeping where it is right, else vmap), ``bookkeeping`` or ``vmap``.
    at_once: most records that a pass of the steps will hold; None: as many as are given here, and
        no more than the fast engine takes at once.

    With all randomness fixed record by record, on batches of two sizes that are no dimension of
    a record, this compares the engine's per-record norms and clipped sum with ordinary autograd
    on each record alone; for the fast engine also whether records are kept apart ``at_once``. What
    it found is remembered for this model, loss, shape and types as long as the model looks the
    same (modes, hooks, ``forward``, attributes, autocast: ``repro.privacy.gate.state``), so that
    later calls cost well below a millisecond. The model is left as it was.

    A term of the loss that no record enters (a penalty on parameters) is then part of every
    record's loss, clipped with it: vmap does that; ``weight_decay`` is the better place for it.

    Records that mix only in larger batches than the first tries, or since the model was changed
    after it had passed, are left to vmap, which takes each alone, with a RuntimeWarning.

    Raises InputError by name for: other records that mix; records that a forward pass writes to
    the model or keeps on it; a parameter without a gradient; several inputs; and what the
    reference engine cannot differentiate (``nn.GRU``, activation checkpointing, sparse
    gradients). Raises ``Unsupported`` for an engine asked for by name that is wrong or fails for
    this model.
    """
    parameters = trainable_parameters(model)
    check_loss(loss_fn)
    check_count("views", views)
    if at_once is not None:
        at_once = check_count("at_once", at_once, least=0)  # of an empty batch
        if at_once >= 2**31:
            raise InputError("at_once", at_once, "records that memory can hold")
    check_batch(inputs, targets, parameters, views)
    check_choice("engine", engine, ("auto", *ENGINES))
    if not len(inputs):
        return EngineChoice(choose(engine, model), engine)
    batch = Batch(model, loss_fn, inputs, targets, Clipping(1.0), views)
    known = _MEMORY.recall(batch, engine)
    if known is None:
        known = _decide(batch, engine, _MEMORY.passed_before(batch, engine))
        _MEMORY.keep(batch, engine, known, known.tried.passes_change)
        if known.tried.mixes:
            _warn(known)
    most = max(1, ENGINES[FAST].default_chunk // views)
    return _at_size(batch, known, at_once or min(len(inputs), most))


def still_right(choice: EngineChoice, batch: Batch, at_once: int) -> EngineChoice:
    """``choice``, found earlier for this model or for another copy of it, or what took its place.

    As ``check_engine``, it is tried anew where the model looks different, and where a pass holds
    more records than were tried together.
    """
    if not len(batch):
        return choice
    known = _MEMORY.recall(batch, choice.requested)
    if known is None and _MEMORY.passed_before(batch, choice.requested):
        return check_engine(
            batch.model,
            batch.loss_fn,
            batch.inputs,
            batch.targets,
            engine=choice.requested if choice.engine.name == FAST else choice.engine.name,
            views=batch.views,
            at_once=at_once,
        )
    if known is None:
        _MEMORY.keep(batch, choice.requested, choice, choice.tried.passes_change)
    elif choice.engine.name == FAST:
        choice = known  # the same, or what it was given up for
    return _at_size(batch, choice, at_once)


def check_again(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    used: str,
    at_once: int,
    views: int = 1,
) -> None:
    """Raise ``Voided`` where the engine that has been ``used`` would not pass now.

    Not for a training that has diverged: parameters of NaN or Inf leave nothing to compare, and
    say nothing about the steps that led there, each of which was looked at.
    """
    batch = Batch(model, loss_fn, inputs, targets, Clipping(1.0), views)
    try:
        try:
            random = _decide(batch, used, used == _REFERENCE).tried.random
        except Unsupported:  # the engines differ; records that mix are another finding
            if not _right_in_double(batch, used):
                raise
            random = True
        if used == FAST:
            refuse_mixing_at(batch, at_once, random)
    except InputError as problem:
        if NOTHING_FINITE not in str(problem):
            raise voided(model, Tried(failed=said(problem))) from problem


def _right_in_double(batch: Batch, used: str) -> bool:
    """Does a copy of the model in float64 pass?

    Two engines round a trained network's float32 activations differently. A ReLU whose input is
    zero but for that is on in one and off in the other, which moves a gradient by per cents. That
    is no fault, and float64 leaves it no room.
    """
    try:
        _decide(in_double(batch), used, used == _REFERENCE)
    except Exception:  # a model that cannot be copied, say: the finding in float32 stands
        return False
    return True


def give_up(batch: Batch, choice: EngineChoice, problem: Exception) -> EngineChoice:
    """``choice.after(problem)``; where records mixed, from now on and with a warning."""
    after = choice.after(problem)
    if isinstance(problem, Mixes):
        after.tried.mixes = True
        _MEMORY.keep(batch, choice.requested, after)
        _warn(after)
    return after


def _at_size(batch: Batch, known: EngineChoice, size: int) -> EngineChoice:
    """``known``, or vmap where records mix in a batch of ``size``."""
    tried = known.tried
    if known.engine.name != FAST or (size <= tried.together and not tried.failed):
        return known
    try:
        if tried.failed:
            raise Mixes("model", type(batch.model).__name__, f"one that passes, now {tried.failed}")
        refuse_mixing_at(batch, size, tried.random)
    except Mixes as problem:
        _refuse_void(batch, tried)
        if known.requested != "auto":
            reason = f"vmap or auto for this model: {said(problem)}"
            raise Unsupported("engine", known.requested, reason) from None
        _decide(batch, _REFERENCE, True)
        return give_up(batch, known, problem)
    tried.together = size
    return known


def _refuse_void(batch: Batch, tried: Tried) -> None:
    """Raise ``Voided`` where records mix at a size that had passed, and sums were made since."""
    if tried.failed or not tried.sums:
        return
    try:
        refuse_mixing_at(batch, tried.together, tried.random)
    except Mixes as problem:
        tried.failed = f"records mixed in a batch of {tried.together}"
        raise voided(batch.model, tried) from problem


def _warn(choice: EngineChoice) -> None:
    warnings.warn(
        f"records are taken one at a time (vmap), which keeps the clip bound: {choice.reason}",
        RuntimeWarning,
        stacklevel=3,
    )


def _decide(batch: Batch, engine: str, tolerant: bool) -> EngineChoice:
    """tolerant: records that mix are left to the reference engine, not refused."""
    small, large = probe_sizes(batch)
    probe = probe_of(batch, large)
    first = replace(probe, inputs=probe.inputs[:small], targets=probe.targets[:small])
    with Attributes(batch.model) as attributes:
        before = attributes_of(batch.model)
        choice = _tried(first, probe, engine, tolerant)
        after = attributes_of(batch.model)
        changed = attributes.changed()
    if changed:
        refuse_kept_records(probe)
    places = {*before, *after}
    choice.tried.passes_change = frozenset(p for p in places if before.get(p) != after.get(p))
    return choice


def _tried(first: Probe, probe: Probe, engine: str, tolerant: bool) -> EngineChoice:
    wanted = ENGINES[FAST if engine == "auto" else engine]
    if engine == FAST:  # its own words about a layer say more than what autograd makes of it
        choose(engine, probe.model)
        named(probe.model, "book-keeping", lambda: measured(wanted, first))
    one = named(probe.model, "plain autograd", lambda: alone(probe, 0))
    random = one.random or named(probe.model, "a batch", lambda: draws_in_batch(probe))
    first, probe = replace(first, random=random), replace(probe, random=random)
    found = named(probe.model, "plain autograd", lambda: records_alone(probe, one))
    tried = Tried(together=len(probe), random=random)
    reason = None
    try:
        named(probe.model, "a batch", lambda: refuse_mixing(probe, found))
    except Mixes as problem:
        if not tolerant:
            raise
        tried.mixes, reason = True, said(problem)
    named(probe.model, "a batch", lambda: refuse_carried(probe, found))
    if engine != _REFERENCE:
        reason = reason or _against(wanted, (first, probe), found)
        if reason is None:
            return EngineChoice(wanted, engine, tried=tried)
        if engine != "auto":
            raise Unsupported("engine", engine, f"vmap or auto for this model: {reason}")
    _check_reference(probe, found)
    return EngineChoice(ENGINES[_REFERENCE], engine, reason, tried)


def _against(engine: Engine, probes: Sequence[Probe], found: Sequence[Alone]) -> str | None:
    """Why an engine other than the reference is not to be used: its settings, the loss, or what it
    does."""
    reason = engine.reason_against(probes[0].model)
    if reason is None and found[0].penalised:
        reason = f"loss_fn has a term of parameter {found[0].penalised} besides the outputs"
    return reason or _wrong(engine, probes, found)


def _run(engine: Engine, probe: Probe, found: Sequence[Alone]) -> str | None:
    return disagreement(engine, probe, found[: len(probe)])


def _wrong(engine: Engine, probes: Sequence[Probe], found: Sequence[Alone]) -> str | None:
    """Why the engine is not to be used: what it gets wrong, or whatever it raises."""
    tries = [partial(_run, engine, probe, found) for probe in probes]
    if engine.name == FAST:  # all others take every record alone
        tries.append(partial(mixing_of_extremes, probes[-1]))
        tries.append(partial(disturbance, engine, probes[0], found[0].types))
    for one in tries:
        try:
            reason = one()
        except Exception as problem:
            reason = said(problem)
        if reason:
            return reason
    return None


def _check_reference(probe: Probe, found: Sequence[Alone]) -> None:
    """Refuse by name what the reference engine cannot do, or does not do as autograd does."""
    reference = ENGINES[_REFERENCE]
    reason = named(probe.model, "torch.func", lambda: _run(reference, probe, found))
    if reason is None:
        return
    with contextlib.suppress(Exception):  # gone in float64: it was rounding; else it is real
        exact = in_double(probe)
        if _run(reference, exact, records_alone(exact)) is None:
            return
    if probe.random and _agrees_without_randomness(probe):
        return
    raise InputError(
        "model",
        type(probe.model).__name__,
        f"per-record gradients that are autograd's, but {reason}: use every parameter through "
        "its module's attribute in the forward pass, not through a reference kept elsewhere",
    )


def _agrees_without_randomness(probe: Probe) -> bool:
    """In evaluation mode: masks of layers that put another axis first are not comparable."""
    with modes_kept(probe.model):
        probe.model.eval()
        return _run(ENGINES[_REFERENCE], probe, records_alone(probe)) is None
