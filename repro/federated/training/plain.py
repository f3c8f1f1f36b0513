"""Local trainers: global model + hospital → update.

A trainer changes the model it is given; the caller takes the difference. ``PlainTrainer`` is
the authors' local training; ``repro.federated.training.private`` holds DP-SGD's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repro.accounting import PrivacyEvent
from repro.errors import InputError
from repro.federated.images import LabelledImages
from repro.randomness import RootSeed
from repro.runs.settings import LocalSettings
from repro.shapes import Int


@dataclass(frozen=True)
class HospitalData:
    """One hospital's side of the federation."""

    hospital: int
    train: LabelledImages
    held_out: LabelledImages | None = None  # where a private search scores its trials on them


@dataclass(frozen=True)
class LocalReport:
    """What a trainer says of one hospital's round."""

    loss: float | None  # mean training loss over the round's batches, nats; None: not released
    diagnostics: dict[str, int] = field(default_factory=dict)  # for this machine only


class LocalTrainer(ABC):
    """Trains ``model`` in place on one hospital's data. Keeps nothing between rounds, and nothing
    about it is private, unless a subclass says so.

    mechanism: what a ledger calls it; None: not private.
    """

    mechanism: str | None = None

    @abstractmethod
    def train(
        self, model: nn.Module, data: HospitalData, *, seed: RootSeed, round_number: int
    ) -> LocalReport: ...

    def spends(self, hospital: int) -> list[tuple[PrivacyEvent, int]]:
        """What a round costs one of the hospital's records: (event, how often); public."""
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state  # there is nothing to go on with


def images_per_pass(epochs: int | float, images: int) -> list[int]:
    """How many images each pass over the data takes: all of them, in the last one a fraction.

    Of a fraction of an epoch at least one image is left. Raises InputError unless epochs > 0.
    """
    if not 0 < epochs < math.inf:
        raise InputError("epochs", epochs, "a number above 0")
    whole = int(epochs)
    rest = [max(1, round((epochs - whole) * images))] if epochs > whole else []
    return [images] * whole + rest


class PlainTrainer(LocalTrainer):
    """Cross-entropy and Adam over shuffled batches, the last one possibly smaller [code].

    keep_optimizer: False re-creates Adam every round, as the authors do; True keeps its moments
        (central training), and then they are part of the checkpoint.
    """

    def __init__(self, settings: LocalSettings) -> None:
        self.settings = settings
        self._kept: dict[int, dict[str, Any]] = {}

    def train(
        self, model: nn.Module, data: HospitalData, *, seed: RootSeed, round_number: int
    ) -> LocalReport:
        optimizer = torch.optim.Adam(model.parameters(), lr=self.settings.learning_rate, fused=True)
        if self.settings.keep_optimizer and data.hospital in self._kept:
            optimizer.load_state_dict(self._kept[data.hospital])
        total = torch.zeros((), device=data.train.labels.device)
        batches = self.batches(data, seed=seed, round_number=round_number)
        model.train()
        # One copy to the device for all steps.
        positions = torch.cat(batches).to(total.device).split([len(batch) for batch in batches])
        for batch in positions:
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(data.train.inputs(batch)), data.train.labels[batch])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        if self.settings.keep_optimizer:
            self._kept[data.hospital] = optimizer.state_dict()
        return LocalReport(loss=float(total) / len(batches))

    def batches(
        self, data: HospitalData, *, seed: RootSeed, round_number: int
    ) -> list[Int[Tensor, " _"]]:
        """Which of the hospital's images each step of the round takes; on the CPU."""
        order = seed.torch_generator("batch order", data.hospital, round_number)
        taken: list[Tensor] = []
        for images in images_per_pass(self.settings.epochs, len(data.train)):
            shuffled = torch.randperm(len(data.train), generator=order)[:images]
            taken += shuffled.split(self.settings.batch_size)
        return taken

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._kept = dict(state["kept"])


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss a record, (B,), nats.

    targets: (B,) classes; or (B, L) of 0 and 1, where a record may have any of L labels: then the
    sum over labels of each one's against the rest (logistic regression for each label). What one
    record adds to a sum of gradients is clipped as a whole either way, so which loss it is changes
    nothing of what a release costs.
    """
    if targets.ndim == outputs.ndim:
        return F.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), reduction="none"
        ).sum(-1)
    return F.cross_entropy(outputs, targets, reduction="none")
