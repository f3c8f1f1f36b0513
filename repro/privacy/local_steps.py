"""Several gradient steps of every record on its own, clipped as one contribution.

Starting from the public model θ, each record (with all its views) takes ``steps`` gradient steps
on its own loss ℓ, θ_{j+1} = θ_j − η ∇ℓ(θ_j). What it adds to the sum is its displacement divided
by the rate,

    (θ − θ_L) / η = Σ_{j<L} ∇ℓ(θ_j),

clipped as one vector. No record's steps see another record, so adding or removing one changes the
sum by at most C, whatever L and η are: the sensitivity, the noise and the accountant are those of
one gradient, and L = 1 is DP-SGD. Ordinary local SGD, where the second step is taken at a model
that all records of the first have moved, has no such bound (docs/shared-noise.md).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import grad, vmap

from repro.checks import Number, check_count, check_positive
from repro.privacy.batch import Batch, LossFunction
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ClippedSum, Unsupported
from repro.privacy.engines.functional import clip_and_sum
from repro.privacy.gate import check_engine
from repro.privacy.per_sample import RecordLoss, slow_vmap_allowed
from repro.privacy.step import clipped_sum
from repro.privacy.validation import FrozenBuffers, trainable_parameters


def clipped_displacements(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Tensor,
    targets: Tensor,
    *,
    steps: int,
    rate: Number,
    clipping: Clipping,
    engine: str = "auto",
    chunk_size: int | None = None,
    views: int = 1,
) -> tuple[ClippedSum, str]:
    """Σ_i clip((θ − θ_L,i) / η) **without noise**, and the engine's name.

    model, loss_fn, inputs, targets, clipping, chunk_size, views: as ``clipped_sum``'s. The views
        are averaged in the record's loss, that is before clipping, at every one of its steps.
    steps: L ≥ 1. rate: η > 0, of the records' own steps; with one step it has no part.
    engine: of one step, ``auto``, ``bookkeeping`` or ``vmap``. Of more ``auto`` and ``vmap``:
        every record has parameters of its own, which book-keeping's one backward pass has not.

    One step *is* ``clipped_sum``. The first call for a model, loss and shape tries whether its
    records are kept apart (``check_engine``). A record whose steps diverge to NaN or Inf, or to a
    squared norm that overflows, adds exactly zero and is counted. Memory: about three times the
    parameters a record of a chunk. Raises InputError before any work.
    """
    steps = check_count("steps", steps)
    own = LocalSteps(steps, rate)
    if steps == 1:
        return clipped_sum(
            model,
            loss_fn,
            inputs,
            targets,
            clipping=clipping,
            engine=engine,
            chunk_size=chunk_size,
            views=views,
        )
    if engine not in ("auto", "vmap"):
        raise Unsupported("engine", engine, "auto or vmap for several steps of a record")
    check_engine(model, loss_fn, inputs, targets, engine="vmap", views=views)
    return clipped_sum(
        model,
        loss_fn,
        inputs,
        targets,
        clipping=clipping,
        engine=own,
        chunk_size=chunk_size,
        views=views,
    )


class LocalSteps:
    """The engine: the same loop for every record of a chunk at once, each on its own parameters."""

    name = "local-steps"
    default_chunk = 32

    def __init__(self, steps: int, rate: Number) -> None:
        self.steps, self.rate = check_count("steps", steps), check_positive("rate", rate)

    def reason_against(self, model: nn.Module) -> str | None:
        return None

    def clipped_sum(self, batch: Batch) -> ClippedSum:
        return clip_and_sum(self.displacements(batch), batch.clipping)

    def displacements(self, batch: Batch) -> dict[str, Tensor]:
        """name -> (B, *parameter.shape), before clipping; B ≥ 1.

        Gradients are added up, not parameters subtracted: that would cancel digits where the
        rate is small, and one step would not be the gradient to the last bit.
        """
        start = {name: p.detach() for name, p in trainable_parameters(batch.model).items()}
        buffers = FrozenBuffers(batch.model)
        gradient = grad(RecordLoss(batch.model, batch.loss_fn, buffers, batch.views))

        def of_record(
            values: dict[str, Tensor], record: Tensor, target: Tensor
        ) -> dict[str, Tensor]:
            moved: dict[str, Tensor] = gradient(values, record, target)
            for _ in range(self.steps - 1):
                here = {name: values[name] - self.rate * moved[name] for name in values}
                one = gradient(here, record, target)
                moved = {name: moved[name] + one[name] for name in values}
            return moved

        inputs = batch.inputs if batch.views > 1 else batch.inputs.unsqueeze(1)
        with slow_vmap_allowed():
            moved: dict[str, Tensor] = vmap(
                of_record, in_dims=(None, 0, 0), randomness="different"
            )(start, inputs, batch.targets)
        buffers.check()
        return moved
