"""Several small hospitals at once: their models stacked into one, under ``torch.func.vmap``.

A hospital of a few images and a small model leaves a GPU idle between launches. Here a step of
H hospitals is one forward and one backward pass of H models with weights of their own, and one
step of Adam, which works on every coordinate by itself. Each hospital takes exactly the batches
it would take alone; sums of floats may come in another order, so numbers differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.federated.images import LabelledImages
from repro.federated.vector import to_vector
from repro.privacy.engines.stacking import call_stacked, check_stackable, unstacked_vectors
from repro.typing import Bool, Float, Int


def train_stacked(
    model: nn.Module,
    images: LabelledImages,
    batches: Sequence[Sequence[Int[Tensor, " _"]]],
    learning_rate: float,
) -> tuple[Float[Tensor, "hospitals size"], Float[Tensor, " hospitals"]]:
    """Cross-entropy and a fresh Adam for every hospital, all from the weights of ``model``.

    images: of all hospitals together. batches: of each hospital, step by step, positions in
    ``images`` (on the CPU); numbers of steps may differ, and so may sizes of batches, and none
    is zero. Returns each one's final weights as ``to_vector`` orders them, and its mean loss
    over steps, nats. The model is only read.
    """
    check_stackable(model)
    # Those with most steps first: the ones still at work are then always the first few.
    order = sorted(range(len(batches)), key=lambda one: -len(batches[one]))
    device = images.labels.device
    stack = _Stack(model, len(batches), learning_rate)
    totals = torch.zeros(len(batches), device=device)
    for positions, counts in _schedule([batches[one] for one in order], device):
        stack.keep(len(counts))
        # Not channels-last: stacked convolutions have groups, and pooling no rule for that layout.
        inputs = images.inputs(positions.flatten()).contiguous()
        logits = stack.logits(inputs.unflatten(0, positions.shape))
        totals[: len(counts)] += stack.step(_mean_losses(logits, images.labels[positions], counts))
    steps = torch.tensor([len(batches[one]) for one in order], device=device)
    back = torch.tensor(order, device=device).argsort()
    return stack.vectors[back], (totals / steps)[back]


class _Stack:
    """Weights (H, P) and their Adam; ``keep`` lets the last ones rest."""

    def __init__(self, model: nn.Module, count: int, learning_rate: float) -> None:
        self.model, self.learning_rate = model, learning_rate
        self.vectors = to_vector(model).repeat(count, 1)
        self._shapes = {name: p.shape for name, p in model.named_parameters()}
        self._follow({}, count)

    def keep(self, count: int) -> None:
        """From now on train the first ``count`` models; the others' weights are final."""
        if count < len(self._active):
            self._follow(self._optimizer.state[self._active], count)

    def _follow(self, state: dict[str, Tensor], count: int) -> None:
        """Adam on the first rows of the weights, with the first rows of its former moments."""
        self._active = self.vectors[:count].requires_grad_()
        self._optimizer = torch.optim.Adam([self._active], lr=self.learning_rate, fused=True)
        self._optimizer.state[self._active] = {
            name: value[:count] if value.ndim else value for name, value in state.items()
        }

    def logits(self, inputs: Float[Tensor, "active b *image"]) -> Float[Tensor, "active b classes"]:
        """Of each active model for its own inputs."""
        return call_stacked(self.model, unstacked_vectors(self._active, self._shapes), inputs)

    def step(self, losses: Float[Tensor, " active"]) -> Float[Tensor, " active"]:
        """Adam on each model's own loss; gives the losses back, detached."""
        # A model's loss depends on its own row alone, so the sum's gradient has each one's own.
        (self._active.grad,) = torch.autograd.grad(losses.sum(), [self._active])
        self._optimizer.step()
        return losses.detach()


def _schedule(
    batches: Sequence[Sequence[Int[Tensor, " _"]]], device: torch.device
) -> Iterator[tuple[Int[Tensor, "active longest"], Int[Tensor, " active"]]]:
    """Each step's batches as one matrix, and their sizes, of the hospitals still at work.

    batches: on the CPU, longest first. Short rows are filled up with their own first image.
    """
    sizes = [[len(batch) for batch in own] for own in batches]
    steps, longest = len(sizes[0]), max(size for own in sizes for size in own)
    positions = torch.zeros(steps, len(batches), longest, dtype=torch.int64)
    counts = torch.zeros(steps, len(batches), dtype=torch.int64)
    for row, own in enumerate(batches):
        for step, batch in enumerate(own):
            positions[step, row] = batch[0]
            positions[step, row, : len(batch)] = batch
            counts[step, row] = len(batch)
    there, counts_there = positions.to(device), counts.to(device)  # once, not in every step
    for step in range(steps):
        active, width = int((counts[step] > 0).sum()), int(counts[step].max())
        yield there[step, :active, :width], counts_there[step, :active]


def _mean_losses(
    logits: Float[Tensor, "active b classes"],
    labels: Int[Tensor, "active b"],
    counts: Int[Tensor, " active"],
) -> Float[Tensor, " active"]:
    """Mean cross-entropy of each model over its first ``counts`` images; the rest has no part."""
    each = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    real: Bool[Tensor, "active b"] = (
        torch.arange(labels.shape[1], device=labels.device) < counts[:, None]
    )
    return (each.view(labels.shape) * real).sum(1) / counts
