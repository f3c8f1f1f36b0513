"""Loss, accuracy and confusion matrix of a model on a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.federated.images import LabelledImages
from repro.typing import Int

BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    loss: float  # mean cross-entropy, nats
    accuracy: float  # fraction right
    confusion: Int[Tensor, "classes classes"]  # row: true class, column: predicted class


@torch.no_grad()
def evaluate(model: nn.Module, data: LabelledImages, num_classes: int) -> Evaluation:
    """Evaluate in fixed batches, so that the sums have one order whatever the machine.

    A model that has diverged has loss NaN or ∞ and whatever accuracy its argmax gives; a
    non-finite row counts as class 0, which is what ``argmax`` of NaN would hide.
    """
    was_training = model.training
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=data.labels.device)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    for start in range(0, len(data), BATCH):
        part = slice(start, start + BATCH)
        logits, labels = model(data.inputs(part)), data.labels[part]
        loss += F.cross_entropy(logits, labels, reduction="sum").double()
        predicted = torch.nan_to_num(logits, nan=0.0).argmax(1)
        cells = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
        confusion += cells.cpu().view(num_classes, num_classes)
    model.train(was_training)
    right = int(confusion.diagonal().sum())
    return Evaluation(float(loss) / len(data), right / len(data), confusion)
