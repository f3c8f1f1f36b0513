"""DP-SGD of several hospitals at once: their gradients in one pass, all else as ever.

Sampling, clipping, noise, division and the optimizer's step are each run's own
(``DPSGDRun.step``); a run is told only where its batch's clipped sum comes from.
"""

from __future__ import annotations

from collections.abc import Sequence

from repro.errors import InputError
from repro.privacy.dpsgd import DPSGDReport, DPSGDRun
from repro.privacy.engines.stacked import stacked_sums


def train_together(runs: Sequence[DPSGDRun], steps: Sequence[int]) -> list[DPSGDReport]:
    """Take ``steps[i]`` steps of run i; the same as one run after the other, up to rounding.

    runs: of models of one architecture (each its own copy, nothing frozen, no buffers), one loss
        and one clipping rule, without views or chunks. Each model is trained in place.
    """
    for run in runs:
        _check(run, runs[0])
        run.model.train()  # the mode the runs were tried in: models without buffers freeze nothing
    for step in range(max(steps)):
        _one_step([run for run, last in zip(runs, steps, strict=True) if step < last])
    return [run.finish() for run in runs]


def _check(run: DPSGDRun, first: DPSGDRun) -> None:
    """What all models share, and what the pass over all of them would leave unheard."""
    settings = run.settings
    if settings.rule() != first.settings.rule() or run.loss_fn is not first.loss_fn:
        raise InputError("runs", settings, "one clipping rule and loss for all")
    if settings.views != 1 or settings.chunk_size is not None:
        raise InputError("runs", settings, "one view and no chunk_size")
    if settings.noise != "gaussian":
        raise InputError("noise", settings.noise, "gaussian: discrete noise is of single records")
    if settings.engine not in ("auto", "vmap"):
        raise InputError("engine", settings.engine, "auto or vmap: the pass is one of its own")
    frozen = [name for name, p in run.model.named_parameters() if not p.requires_grad]
    for name in frozen + [name for name, _ in run.model.named_buffers()]:
        raise InputError("runs", name, "models of trainable parameters alone: the rest is shared")


def _one_step(runs: Sequence[DPSGDRun]) -> None:
    models, batches = [run.model for run in runs], [run.batch() for run in runs]
    sums = stacked_sums(models, runs[0].loss_fn, batches, runs[0].settings.rule())
    for run, summed in zip(runs, sums, strict=True):
        run.step(engine=summed)
