"""The one path of a private step: clip every record, sum, add noise; nothing in between.

With discrete noise the records are clipped and rounded to the grid one at a time and added up as
integers, so that the noise covers all rounding there is. With Gaussian noise sums are floats.
The noise is added here and nowhere else, always, with deviation σC fixed by the same two
numbers that clipping and the accountant use; there is no flag to skip or rescale it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.checks import (
    Number,
    check_choice,
    check_count,
    check_not_negative,
    check_word64,
)
from repro.errors import InputError
from repro.privacy.batch import Batch, LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.discrete_gaussian import add_discrete_gaussian, grid_step, record_on_grid
from repro.privacy.engines import ENGINES, ClippedSum, Engine
from repro.privacy.gate import EngineChoice, check_engine, give_up, still_right, watched_sum
from repro.privacy.noise import add_gaussian_noise
from repro.privacy.noise_key import digest, noise_keys
from repro.privacy.ranks import Ranks
from repro.privacy.validation import (
    check_batch,
    check_loss,
    check_model,
    check_rows,
    flat_dtype,
    records_are_taken,
    trainable_parameters,
)

NOISES = ("gaussian", "discrete_gaussian")
_ALONE = Ranks()


@dataclass(frozen=True)
class NoisySum:
    """Σ_i clip(g_i) + N(0, (σC)² I) of one step (or the same on a grid), and how it was made.

    ``gradient`` alone is covered by the privacy guarantee. The counts were computed from
    records without noise (of this process's part of the batch): for diagnostics on this machine,
    not for release.
    """

    gradient: dict[str, Tensor]  # name -> tensor of the parameter's shape and type
    flat: Tensor  # (P,), the same, float32 (float64 for float64 parameters)
    engine: str
    non_finite: int
    clipped: int
    records: int
    engine_reason: str | None = None  # why not the fast engine, where ``auto`` took another


def clipped_noisy_sum(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    clip_norm: Number | Clipping,
    noise_multiplier: Number,
    seed: int,
    step: int,
    engine: str | Engine | EngineChoice = "auto",
    chunk_size: int | None = None,
    views: int = 1,
    noise: str = "gaussian",
    ranks: Ranks = _ALONE,
) -> NoisySum:
    """One private step's gradient sum (Abadi et al. 2016, Algorithm 1, without its division).

    model, loss_fn, inputs, targets, views: as in ``per_sample_gradients``. The batch may be
        empty: the sum is then noise alone, and the step must be taken all the same.
    clip_norm: C (flat clipping), or a ``Clipping``.
    noise_multiplier: σ ≥ 0; the noise has deviation σC, which hides adding or removing one
        record (sensitivity C). Divide the result by the public *expected* batch size.
    seed, step: key and counter of the noise, 0 … 2⁶⁴ − 1. A pair that this process has used on
        another sum, or with other noise, is refused (``repro.privacy.noise_key``).
    engine: ``auto``, ``bookkeeping`` or ``vmap``: the first call for a model, loss and shape, and
        the first after a change of the model, tries them on a few records and refuses what is not
        right (``check_engine``). Or what ``check_engine`` gave; or an engine itself, taken on
        trust. All give the same sum to rounding.
    chunk_size: most records processed at once (virtual batches); changes memory and speed only.
    noise: ``gaussian``, or ``discrete_gaussian``: exact integers on a grid, one record at a time
        whatever ``chunk_size``, and slow.
    ranks: the processes that share this step (``make_private``'s ``process_group``). The batch is
        then this one's part, disjoint from the others'; every rank gets the noisy sum of all.

    The model is left as it was, its ``.grad`` too, whatever happens. Raises InputError before any
    work, but for a noise key on other data, which is found when the sum is there, and ``Voided``
    for records that turn out to mix in a model that had passed: nothing is released then.
    """
    clipping = clip_norm if isinstance(clip_norm, Clipping) else Clipping(clip_norm)
    noise_multiplier = check_not_negative("noise_multiplier", noise_multiplier)
    seed, step = check_word64("seed", seed), check_word64("step", step)
    check_choice("noise", noise, NOISES)
    batch = Batch(model, loss_fn, inputs, targets, clipping, check_count("views", views))
    grid = _grid(batch, noise_multiplier) if noise == "discrete_gaussian" else 0.0
    with ranks.all_or_none():
        summed, chosen = _summed(batch, engine, chunk_size, grid)
    # With several ranks: S = Σ_r S_r, a record in one S_r only, so it moves S by at most C as ever,
    # and rank 0 adds N(0, (σC)²) to S once. What leaves is S + that noise, the same on every rank;
    # a rank that is lost ends the step before there is any sum to add noise to.
    ranks.sum_to_first(summed.total)
    with ranks.all_or_none():
        if ranks.first:
            noisy = _noisy(summed.total, noise, noise_multiplier, grid, batch, seed, step)
        else:
            noisy = summed.total.to(flat_dtype(trainable_parameters(model)))  # only its place
    ranks.from_first(noisy)
    return NoisySum(
        gradient=unflatten(noisy, trainable_parameters(model)),
        flat=noisy,
        engine=chosen.engine.name,
        non_finite=summed.non_finite,
        clipped=summed.clipped,
        records=summed.records,
        engine_reason=chosen.reason,
    )


def clipped_sum(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    clipping: Clipping,
    engine: str | Engine | EngineChoice = "auto",
    chunk_size: int | None = None,
    views: int = 1,
) -> tuple[ClippedSum, str]:
    """Σ_i clip(g_i) **without noise**, and the engine's name; arguments as ``clipped_noisy_sum``'s.

    For those who add noise themselves before anybody else sees the sum (a party's share in
    ``repro.federated.shared``). Nothing about it is private.
    """
    batch = Batch(model, loss_fn, inputs, targets, clipping, check_count("views", views))
    summed, chosen = _summed(batch, engine, chunk_size)
    return summed, chosen.engine.name


def _summed(
    batch: Batch, engine: str | Engine | EngineChoice, chunk_size: int | None, grid: float = 0.0
) -> tuple[ClippedSum, EngineChoice]:
    """The sum by the engine that passes the gate, and which that was."""
    if chunk_size is not None:
        chunk_size = check_count("chunk_size", chunk_size)
    check_model(batch.model)
    check_loss(batch.loss_fn)
    check_rows("inputs", batch.inputs)
    records = batch.model, batch.loss_fn, batch.inputs, batch.targets
    at_once = 1 if grid else most_at_once(len(batch), chunk_size, batch.views)
    if isinstance(engine, str):
        chosen = check_engine(*records, engine=engine, views=batch.views, at_once=at_once)
    else:
        check_batch(*records[2:], trainable_parameters(batch.model), batch.views)
        if not isinstance(engine, EngineChoice):
            if not isinstance(engine, Engine):
                raise InputError("engine", engine, f"auto, {', '.join(ENGINES)}, or an engine")
            with records_are_taken():
                return _sum(engine, batch, chunk_size, grid), EngineChoice(engine, engine.name)
        chosen = still_right(engine, batch, at_once)
    with records_are_taken():
        try:
            return _sum(chosen, batch, chunk_size, grid), chosen
        except Exception as problem:
            chosen = give_up(batch, chosen, problem)
            return _sum(chosen, batch, chunk_size, grid), chosen


def most_at_once(count: int, chunk_size: int | None, views: int = 1) -> int:
    """Most records of ``count`` that a pass of the fast engine holds: parts are of even sizes."""
    largest = chunk_size or max(1, ENGINES["bookkeeping"].default_chunk // views)
    return -(-count // max(1, -(-count // largest)))


def _grid(batch: Batch, noise_multiplier: float) -> float:
    """h, the grid step of discrete noise; 0 without noise."""
    size = sum(p.numel() for p in trainable_parameters(batch.model).values())
    return grid_step(noise_multiplier, batch.clipping.sensitivity("add_remove"), size)


def _noisy(
    total: Tensor,
    noise: str,
    noise_multiplier: float,
    grid: float,
    batch: Batch,
    seed: int,
    step: int,
) -> Tensor:
    """``total`` and its noise, in the parameters' type; its key may have covered no other sum."""
    if not noise_multiplier:
        return total
    clip_norm = batch.clipping.sensitivity("add_remove")
    made = f"{noise}, deviation {noise_multiplier!r} × {clip_norm!r}"
    noise_keys.use_word("clipped noisy sum", seed, digest(total, note=made), step=step)
    if noise == "gaussian":
        add_gaussian_noise(total, std=noise_multiplier * clip_norm, seed=seed, step=step)
        return total
    noisy = add_discrete_gaussian(total, grid=grid, seed=seed, step=step)
    return noisy.to(flat_dtype(trainable_parameters(batch.model)))


def _sum(
    chosen: Engine | EngineChoice, batch: Batch, chunk_size: int | None, grid: float
) -> ClippedSum:
    """The chunks' clipped sums added up; with a grid, records' one by one, in its steps (int64).

    An engine that was chosen is watched, in the first chunk."""
    engine = chosen.engine if isinstance(chosen, EngineChoice) else chosen
    parameters = trainable_parameters(batch.model)
    size = sum(p.numel() for p in parameters.values())
    device, dtype = next(iter(parameters.values())).device, flat_dtype(parameters)
    total = torch.zeros(size, dtype=torch.int64 if grid else dtype, device=device)
    norms, non_finite, clipped = [torch.zeros(0, dtype=dtype, device=device)], 0, 0
    bound = batch.clipping.sensitivity("add_remove")
    largest = 1 if grid else chunk_size or max(1, engine.default_chunk // batch.views)
    for number, chunk in enumerate(batch.chunks(largest)):
        if number == 0 and isinstance(chosen, EngineChoice):
            part = watched_sum(engine, chunk, chosen.tried)
        else:
            part = engine.clipped_sum(chunk)
        total += record_on_grid(part.total, bound, grid) if grid else part.total
        norms.append(part.norms)
        non_finite += part.non_finite
        clipped += part.clipped
    return ClippedSum(total, torch.cat(norms), non_finite, clipped)


def unflatten(flat: Tensor, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(P,) in pieces: name -> tensor of this parameter's shape and type."""
    pieces = flat.split([p.numel() for p in parameters.values()])
    return {
        name: piece.view(p.shape).to(p.dtype)
        for (name, p), piece in zip(parameters.items(), pieces, strict=True)
    }
