"""DP-SGD on one's own model, optimizer, scheduler and data, at a target (ε, δ).

    training = make_private(
        model, optimizer, loader, loss_fn=nn.CrossEntropyLoss(reduction="none"),
        target_epsilon=6.0, target_delta=1e-5, epochs=10, clip_norm=1.0,
    )
    while not training.finished:
        training.train_epoch()
    print(training.statement())

**Formal guarantee.** Let D and D′ differ in one record, which one of them lacks (add/remove;
sample rate, expected batch and number of steps are public constants, so where the number of
records is not itself secret this is the zero-out relation). The model, the optimizer's and the
scheduler's state after every step, all of them together, are (ε, δ)-differentially private for
a record, with ε = ``training.epsilon()`` ≤ ``target_epsilon`` and δ = ``target_delta``: each step
is one Poisson-subsampled Gaussian mechanism of noise multiplier σ (Abadi et al. 2016, Algorithm
1), whose sum ``clipped_noisy_sum`` makes (with adaptive clipping together with a noisy count, at
the same σ: proof in ``repro.privacy.adaptive_clipping``; with ``bands`` that many steps together
are one such mechanism, for a record that keeps its place in the data: proof in
``repro.privacy.banded_noise``); optimizer and scheduler only process what it released
(post-processing), and the steps compose. ε is the smallest that is proved: by the
privacy loss distribution or by Rényi divergences, exactly where every step takes all records
(docs/accounting.md); noise is planned by the same, and ``statement`` names the proof. It holds in
exact arithmetic; what float noise leaves open is said in docs/dp-core.md. It does not cover how
hyper-parameters were chosen, nor ``seed``s that are known to others.

What happens where:

- *a Poisson batch is empty*: the step is taken on noise alone
- *a record's gradient is NaN or Inf*: it contributes exactly zero
- *an input of several tensors*: differentiated by ``vmap``; book-keeping is refused
- *a record that model or loss refuse*: one line: before anything is drawn, or before that step's
  release
- *``batch_size`` = number of records*: sample rate 1: every step sees every record
- *the budget is spent*: ``step`` raises; the plan cannot be stretched
- *``optimizer.step()`` called directly*: raises: a gradient of one's own would not be accounted
  for; allowed once after ``training.backward()``, on its gradient
- *``loss.backward()`` between the two*: raises: what it adds to ``.grad`` has no noise
- *``model.eval()`` for a validation*: the next step puts back the modes of the planning, if the
  model as a whole was in training mode then
- *BatchNorm, or outputs that mix*: refused before anything is drawn
- *a sampler of the loader's own*: refused: it would be dropped silently
- *the loader's workers, ``drop_last``*: not used: a batch is fetched in this process
- *frozen parameters*: neither clipped, noised nor changed; others may not be frozen on the way
- *the loader's ``collate_fn``*: called on one record at a time: it cannot mix them
- *a ``Dataset`` whose items mix*: an item that changes with what was fetched before it, tried on a
  few, is refused; an item that is always made of several records (mixup, the whole data's mean)
  **cannot be seen**
- *the model changes on the way*: tried anew (hooks, ``forward``, attributes, autocast); records
  that mix from then on, or only in batches as large as the steps', are taken one at a time (vmap),
  with a warning
- *records turn out to have mixed*: ``step`` raises ``Voided``; ε is infinite from then on
- *a model trained privately before*: what it spent then is not in this ε: the two add up
- *a fork of the process, a pickle*: refused: two copies would use the same noise
- *resumed in another process*: same numbers with ``seed``; without, fresh noise and batches (with
  ``bands``, no noise from before is taken back)
- *a process of ``process_group`` dies*: ``step`` raises ``RankFailed``; the step counts, since
  others may have it: go on from a saved state
- *one ``seed`` twice in a process*: the same bits, or refused: on other data or another plan the
  noise would be used again
"""

from __future__ import annotations

import math
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from repro.accounting import calibrate_noise_multiplier
from repro.checks import Number, check_choice, check_count, check_kind, check_positive, check_real
from repro.errors import InputError
from repro.privacy.adaptive_clipping import AdaptiveClipping, ClipNorm
from repro.privacy.banded_noise import BandedNoise
from repro.privacy.batch import LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.drawn_gradients import DrawnGradients
from repro.privacy.noise_key import digest
from repro.privacy.private_step import StepPlan
from repro.privacy.private_training import PrivateTraining
from repro.privacy.ranks import ranks_of
from repro.privacy.records import Data, Records
from repro.privacy.sampling import PoissonSampler
from repro.privacy.step import NOISES, most_at_once
from repro.privacy.training_checks import check_optimizer, check_scheduler, check_together
from repro.privacy.validation import trainable_parameters
from repro.randomness import RootSeed

_MOST_STEPS = 1e15  # nobody takes these, and every count up to here is exact


def make_private(
    model: nn.Module,
    optimizer: Optimizer,
    data: Data,
    *,
    loss_fn: LossFunction,
    target_epsilon: Number | None = None,
    noise_multiplier: Number | None = None,
    target_delta: Number,
    epochs: Number,
    clip_norm: Number,
    batch_size: int | None = None,
    scheduler: LRScheduler | None = None,
    scheduler_every: str = "epoch",
    seed: int | None = None,
    engine: str = "auto",
    chunk_size: int | None = None,
    noise: str = "gaussian",
    adaptive_clipping: AdaptiveClipping | None = None,
    bands: int = 1,
    process_group: dist.ProcessGroup | None = None,
) -> PrivateTraining:
    """Plan a private training of ``model``; nothing is trained yet. See the module's docstring.

    model: keeps records apart, (b, …) -> (b, …); trained in place, in the modes its modules are
        in (call ``model.train()`` for dropout); ``fix`` replaces a BatchNorm.
    optimizer: any ``torch.optim`` optimizer that takes no closure, fresh, over all of the model's
        parameters that have gradients and no others.
    data: a map-style Dataset of (input, target), or a DataLoader of one. An input is a tensor,
        a tuple of tensors (the model is called with one after another) or a dict of them (by
        name: ``model(**input)``); a target is a tensor.
    loss_fn: (outputs, targets) -> one loss per record, (b,): ``reduction="none"``.
    target_epsilon, target_delta: what the whole training may spend; δ below 1 ÷ records.
    noise_multiplier: σ, above 0, in place of ``target_epsilon``; ``planned_epsilon()`` then says
        what all steps will have spent.
    epochs: passes over the data on average, above 0; sets the number of steps.
    clip_norm: C, the largest L2 norm of a record's gradient in the sum.
    batch_size: records per step on average (default: the DataLoader's).
    scheduler: of this optimizer; stepped for you after every ``scheduler_every`` (epoch or step).
    seed: reproducible, NOT private; None takes keys from the operating system.
    engine, noise: as in ``clipped_noisy_sum``.
    chunk_size: most records differentiated at once. ``batch_size`` is the logical batch, which
        sums and noise are of; it is worked off in chunks of this size, whose clipped sums are
        added up before the one draw of noise: the same step, up to the order of the sum.
    adaptive_clipping: let ``clip_norm`` be the first step's, and follow a quantile of the norms
        from there; σ is then of the sum and of the noisy count that it follows, together.
    bands: above 1, DP-FTRL with a banded matrix: each step takes back a part of the noise of the
        ``bands`` − 1 before, and every record may join one step in ``bands`` only, at ``bands``
        times the rate. Needs ``bands`` × ``batch_size`` ≤ records, Gaussian noise and a constant
        clip norm; holds ``bands`` vectors of the model's size.
    process_group: of ``torch.distributed``, e.g. ``dist.group.WORLD`` under torchrun: one training
        by all its processes, each of which calls this alike, with the same model, optimizer and
        data set (no DistributedDataParallel, no DistributedSampler), and takes every step. Each
        differentiates its part of the batch; sums meet once, under one noise; every process keeps
        the same bits. Gloo, or NCCL for models on GPUs. Same plan and ε as one process, and a
        state goes on with any number of them. Without adaptive clipping. In a job of several
        processes None is refused.

    Raises InputError, in one line, for all that is refused: with ``process_group`` on every
    process, and also where they differ.
    """
    ranks = ranks_of(process_group)

    def same() -> dict[str, Any]:
        """What every process of a group has to have alike."""
        return {
            "plan": (sampler, steps, noise_multiplier, clip_norm, target_delta, noise, seed),
            "model": digest(*model.parameters(), *model.buffers(), note=str([*parameters])).hex(),
            "optimizer": f"{type(optimizer).__name__} {_settings(optimizer)}",
            "scheduler": f"{type(scheduler).__name__}, every {scheduler_every}",
            "data": records.identity(),
        }

    with ranks.all_or_none(same):
        parameters = trainable_parameters(model)
        check_optimizer(optimizer, model, parameters)
        check_scheduler(scheduler, scheduler_every, optimizer)
        if (target_epsilon is None) == (noise_multiplier is None):
            raise InputError(
                "target_epsilon and noise_multiplier",
                (target_epsilon, noise_multiplier),
                "exactly one of the two",
            )
        if target_epsilon is not None:
            target_epsilon = check_positive("target_epsilon", target_epsilon)
        if noise_multiplier is not None:
            noise_multiplier = check_positive("noise_multiplier", noise_multiplier)
        epochs = check_positive("epochs", epochs)
        clip_norm = Clipping(clip_norm).clip_norm
        if chunk_size is not None:
            chunk_size = check_count("chunk_size", chunk_size)
        check_choice("noise", noise, NOISES)
        if adaptive_clipping is not None:
            wanted = "an AdaptiveClipping, or None"
            check_kind("adaptive_clipping", adaptive_clipping, AdaptiveClipping, wanted)
        if adaptive_clipping is not None and ranks.size > 1:
            raise InputError("adaptive_clipping", "on", "none, where several processes train")
        if adaptive_clipping is not None and noise != "gaussian":
            raise InputError(
                "noise", noise, "gaussian with adaptive clipping: its proof is of both"
            )
        bands = check_count("bands", bands)
        if bands > 1 and (noise != "gaussian" or adaptive_clipping is not None):
            other = "adaptive clipping" if adaptive_clipping is not None else f"{noise} noise"
            raise InputError("bands", bands, f"1 with {other}: there is no proof of both")
        if bands > 1 and ranks.size > 1:
            raise InputError("bands", bands, "1, where several processes train")
        own = RootSeed.from_entropy() if seed is None else RootSeed.from_user(seed)
        device = next(iter(parameters.values())).device
        records = Records(data, device)
        target_delta = check_real(
            "target_delta",
            target_delta,
            lambda x: 0 < x < 1 / records.count,
            f"above 0 and below 1 ÷ {records.count} records",
        )
        expected = batch_size
        if batch_size is None and isinstance(data, DataLoader):
            expected = data.batch_size
        if expected is None:
            raise InputError("batch_size", None, "a number of records, since data is a Dataset")
        if check_count("batch_size", expected) > records.count:
            most = f"at most the records there are, {records.count}"
            raise InputError("batch_size", expected, most)
        sampler = PoissonSampler.with_expected_batch(records.count, expected, bands)
        at_once = most_at_once(max(1, round(sampler.expected_batch)), chunk_size)
        taking, engine = check_together(model, loss_fn, records, parameters, engine, at_once)
        passes = epochs * sampler.steps_per_epoch() * (1 - 1e-12)
        if passes > _MOST_STEPS:
            raise InputError("epochs", epochs, f"fewer: that is more than {_MOST_STEPS:g} steps")
        steps = max(1, math.ceil(passes))
        banded = BandedNoise(bands, steps)
        if noise_multiplier is None:
            assert target_epsilon is not None
            # The least that any proof allows; a fraction of a second in most plans, 3 s in some.
            noise_multiplier, _ = calibrate_noise_multiplier(
                target_epsilon,
                target_delta,
                sampler.sample_rate,
                -(-steps // bands),  # as in ``banded_event``
            )
    source = DrawnGradients(
        taking,
        records,
        loss_fn,
        StepPlan(sampler, Clipping(clip_norm), noise_multiplier, noise),
        ranks.seed(own),
        banded,
        {"engine": engine, "chunk_size": chunk_size},
        ranks,
    )
    return PrivateTraining(
        model,
        optimizer,
        source,
        steps=steps,
        clip_norm=ClipNorm(
            float(clip_norm),
            noise_multiplier,
            adaptive_clipping,
            expected_batch=sampler.expected_batch,
            seed=source.seed,
        ),
        delta=target_delta,
        scheduler=scheduler,
        scheduler_every=scheduler_every,
    )


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Learning rates and the like of every group of parameters."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
