"""Loss, accuracy and confusion matrix of a model on a split."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.federated.images import LabelledImages
from repro.federated.parallel.ranks import Ranks
from repro.shapes import Float, Int

BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    loss: float  # mean cross-entropy, nats; of several labels an image, their sum
    accuracy: float  # fraction of images right; of images' labels where there are several
    # Row: true class, column: predicted class. Where an image may have several labels, (2, 2): is
    # the label there, is it predicted, added up over labels.
    confusion: Int[Tensor, "classes classes"]
    logits: Float[Tensor, "images outputs"]  # on the CPU, in the split's order


class Diverged(InputError):
    """A model whose loss is no finite number after a round: its accuracy would mean nothing."""


def check_finite(result: Evaluation, round_number: int) -> None:
    """Raise ``Diverged`` unless loss and accuracy are finite numbers."""
    for name, value in (("loss", result.loss), ("accuracy", result.accuracy)):
        if not math.isfinite(value):
            raise Diverged(
                f"{name} after round {round_number}",
                value,
                "a finite number: the model diverged; try a smaller learning rate, or less noise",
            )


@torch.no_grad()
def evaluate(
    model: nn.Module, data: LabelledImages, num_classes: int, ranks: Ranks | None = None
) -> Evaluation:
    """Evaluate in fixed batches, so that the sums have one order whatever the machine.

    ranks: they take turns with the batches and all get the result, the same bits as from one.
    A model that has diverged has loss NaN or ∞, and an accuracy that means nothing, since a
    non-finite row counts as class 0: see ``check_finite``.
    """
    ranks = ranks or Ranks()
    was_training = model.training
    model.eval()
    found: dict[int, tuple[float, Tensor]] = {}
    cells = 2 if data.labels.ndim == 2 else num_classes
    mine = torch.zeros(cells, cells, dtype=torch.int64)
    for start in range(ranks.rank * BATCH, len(data), ranks.size * BATCH):
        part = slice(start, start + BATCH)
        logits, labels = model(data.inputs(part)), data.labels[part]
        if labels.ndim == 2:  # a label is predicted from probability 1/2 on
            loss = float(
                F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="sum")
            )
            labels, predicted = labels.flatten(), (logits > 0).long().flatten()
        else:
            loss = float(F.cross_entropy(logits, labels, reduction="sum"))
            predicted = torch.nan_to_num(logits, nan=0.0).argmax(1)
        found[start] = loss, logits.cpu()
        counted = torch.bincount(labels * cells + predicted, minlength=cells**2)
        mine += counted.cpu().view(cells, cells)
    model.train(was_training)
    everybody: dict[int, tuple[float, Tensor]] = {}
    confusion = torch.zeros_like(mine)
    for part_found, part_confusion in ranks.gather((found, mine)):
        everybody |= part_found
        confusion += part_confusion
    in_order = [everybody[start] for start in sorted(everybody)]  # on any number of ranks
    right = int(confusion.diagonal().sum())
    return Evaluation(
        loss=sum(loss for loss, _ in in_order) / len(data),
        accuracy=right / int(confusion.sum()),
        confusion=confusion,
        logits=torch.cat([logits for _, logits in in_order]),
    )
