"""Which engine a run uses, found once by trying it, and pinned."""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from repro.errors import InputError
from repro.privacy.batch import Batch, LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ENGINES, Engine, Unsupported, choose
from repro.privacy.gate.agreement import disagreement, measured
from repro.privacy.gate.attributes import Attributes, refuse_kept_records
from repro.privacy.gate.disturbance import disturbance
from repro.privacy.gate.mixing import mixing_of_extremes, refuse_mixing
from repro.privacy.gate.probe import (
    Alone,
    in_double,
    probe_of,
    probe_sizes,
    records_alone,
)
from repro.privacy.holding import call_holding
from repro.privacy.validation import check_batch, check_count, trainable_parameters

_FAST, _REFERENCE = "bookkeeping", "vmap"


@dataclass(frozen=True)
class EngineChoice:
    """An engine that passed, to be used for a whole run.

    reason: why it is not the fast one, None if it is or was not asked for. It may quote
        differences that were measured on records without noise: not for release.
    """

    engine: Engine
    requested: str
    reason: str | None = None

    def after(self, problem: Exception) -> EngineChoice:
        """The reference engine, where ``auto`` chose the fast one and that failed; else raises."""
        if self.requested != "auto" or self.engine.name != _FAST:
            raise problem
        return EngineChoice(ENGINES[_REFERENCE], "auto", _said(problem))


def check_engine(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    engine: str = "auto",
    views: int = 1,
) -> EngineChoice:
    """The engine to use for this model and loss, tried on a few of these records.

    model, loss_fn, inputs (B, …) or (B, views, …), targets (B, …): as in
        ``per_sample_gradients``, in the mode (training or evaluation) the steps will run in.
        The first few records are looked at, and none of what is computed leaves this function
        but the choice; B may be 0, and then nothing is tried.
    engine: ``auto`` (book-keeping where it is right, else vmap), ``bookkeeping`` or ``vmap``.

    With all randomness fixed record by record, on batches of two sizes that are no dimension of
    a record, this compares the engine's per-record norms and clipped sum with ordinary autograd
    on each record alone. What it found is remembered for this model, loss, shape, types and
    mode, so that later calls cost microseconds. The model is left as it was.

    A term of the loss that no record enters (a penalty on parameters) is then part of every
    record's loss, clipped with it: vmap does that; ``weight_decay`` is the better place for it.

    Raises InputError by name for: records that mix; records that a forward pass writes to the
    model or keeps on it; a parameter without a gradient; several
    inputs; and what the reference engine cannot
    differentiate (``nn.GRU``, activation checkpointing, sparse gradients). Raises ``Unsupported``
    for an engine asked for by name that is wrong or fails for this model.
    """
    parameters = trainable_parameters(model)
    check_count("views", views)
    check_batch(inputs, targets, parameters, views)
    if engine != "auto" and engine not in ENGINES:
        raise InputError("engine", engine, f"one of auto, {', '.join(ENGINES)}")
    if not len(inputs):
        return EngineChoice(choose(engine, model), engine)
    key = _key(model, loss_fn, inputs, targets, engine, views)
    known = _remembered(model, key, loss_fn)
    if known is None:
        batch = Batch(model, loss_fn, inputs, targets, Clipping(1.0), views)
        known = _decide(batch, engine)
        _remember(model, key, loss_fn, known)
    return known


def _decide(batch: Batch, engine: str) -> EngineChoice:
    small, large = probe_sizes(batch)
    probe = probe_of(batch, large)
    first = replace(probe, inputs=probe.inputs[:small], targets=probe.targets[:small])
    with Attributes(batch.model) as attributes:
        choice = _tried(first, probe, engine)
        changed = attributes.changed()
    if changed:
        refuse_kept_records(probe)
    return choice


def _tried(first: Batch, probe: Batch, engine: str) -> EngineChoice:
    fast = ENGINES[_FAST]
    if engine == _FAST:  # its own words about a layer say more than what autograd makes of it
        choose(engine, probe.model)
        _named(probe.model, "book-keeping", lambda: measured(fast, first))
    found = _named(probe.model, "plain autograd", lambda: records_alone(probe))
    _named(probe.model, "a batch", lambda: refuse_mixing(probe, found))
    reason = None
    if engine != _REFERENCE:
        reason = _against(fast, (first, probe), found)
        if reason is None:
            return EngineChoice(fast, engine)
        if engine == _FAST:
            raise Unsupported("engine", _FAST, f"vmap or auto for this model: {reason}")
    _check_reference(probe, found)
    return EngineChoice(ENGINES[_REFERENCE], engine, reason)


def _against(fast: Engine, probes: Sequence[Batch], found: Sequence[Alone]) -> str | None:
    """Why the fast engine is not to be used: its settings, the loss, or what it does."""
    reason = fast.reason_against(probes[0].model)
    if reason is None and found[0].penalised:
        reason = f"loss_fn has a term of parameter {found[0].penalised} besides the outputs"
    return reason or _wrong(fast, probes, found)


def _run(engine: Engine, probe: Batch, found: Sequence[Alone]) -> str | None:
    return disagreement(engine, probe, found[: len(probe)])


def _wrong(engine: Engine, probes: Sequence[Batch], found: Sequence[Alone]) -> str | None:
    """Why the engine is not to be used: what it gets wrong, or whatever it raises."""
    tries = [partial(_run, engine, probe, found) for probe in probes]
    tries += [partial(mixing_of_extremes, probes[-1]), partial(disturbance, engine, probes[0])]
    for one in tries:
        try:
            reason = one()
        except Exception as problem:
            reason = _said(problem)
        if reason:
            return reason
    return None


def _check_reference(probe: Batch, found: Sequence[Alone]) -> None:
    """Refuse by name what the reference engine cannot do, or does not do as autograd does."""
    reference = ENGINES[_REFERENCE]
    reason = _named(probe.model, "torch.func", lambda: _run(reference, probe, found))
    if reason is None:
        return
    with contextlib.suppress(Exception):  # gone in float64: it was rounding; else it is real
        exact = in_double(probe)
        if _run(reference, exact, records_alone(exact)) is None:
            return
    if any(one.random for one in found) and _agrees_without_randomness(probe):
        return
    raise InputError(
        "model",
        type(probe.model).__name__,
        f"per-record gradients that are autograd's, but {reason}: use every parameter through "
        "its module's attribute in the forward pass, not through a reference kept elsewhere",
    )


def _agrees_without_randomness(probe: Batch) -> bool:
    """In evaluation mode: masks of layers that put another axis first are not comparable."""
    modes = {module: module.training for module in probe.model.modules()}
    try:
        probe.model.eval()
        return _run(ENGINES[_REFERENCE], probe, records_alone(probe)) is None
    finally:
        for module, mode in modes.items():
            module.training = mode


_T = TypeVar("_T")


def _named(model: nn.Module, what: str, call: Callable[[], _T]) -> _T:
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
            f"one that {what} can differentiate record by record, not {_said(problem)}",
        ) from problem


def _said(problem: Exception) -> str:
    text = str(problem).strip().partition("\n")[0]
    if isinstance(problem, InputError):
        return text
    return f"{type(problem).__name__}: {text[:200]}"


# What was found for a model, as long as the model lives. A loss is held weakly too: it may well
# refer to the model.
_Known = OrderedDict[tuple[Any, ...], tuple[Callable[[], Any], EngineChoice]]
_KNOWN: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()
_MOST = 16


def _key(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    engine: str,
    views: int,
) -> tuple[Any, ...]:
    loss = id(getattr(loss_fn, "__func__", loss_fn))  # a new bound method every time it is read
    device = inputs.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    shapes = [(tuple(t.shape[1:]), t.dtype) for t in (inputs, targets)]
    layers = tuple((type(m), m.training) for m in model.modules())
    wanted = tuple((p.requires_grad, p.dtype, p.device) for p in model.parameters())
    return (engine, views, autocast, loss, *shapes, layers, wanted)


def _remembered(
    model: nn.Module, key: tuple[Any, ...], loss_fn: LossFunction
) -> EngineChoice | None:
    known = _KNOWN.get(model)
    held, choice = known.get(key, (None, None)) if known else (None, None)
    return choice if held is not None and held() == loss_fn else None


def _remember(
    model: nn.Module, key: tuple[Any, ...], loss_fn: LossFunction, choice: EngineChoice
) -> None:
    reference = weakref.WeakMethod if isinstance(loss_fn, MethodType) else weakref.ref
    try:
        held: Callable[[], Any] = reference(loss_fn)
    except TypeError:  # a builtin or slotted object: tried again every time
        return
    known = _KNOWN.setdefault(model, OrderedDict())
    known[key] = (held, choice)
    while len(known) > _MOST:
        known.popitem(last=False)
