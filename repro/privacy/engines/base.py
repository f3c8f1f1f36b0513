"""What an engine takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from repro.errors import InputError
from repro.privacy.batch import Batch


class Unsupported(InputError):
    """This engine cannot do this model; ``auto`` then takes the reference engine."""


class NotFinite(ArithmeticError):
    """An engine let a record through that is not finite: its sum would say who took part."""


@dataclass(frozen=True)
class ClippedSum:
    """Clipped gradients of one chunk of records, summed; no noise in it, so never release it."""

    total: Tensor  # (P,), flat over the trainable parameters
    norms: Tensor  # (B,), each record's norm before clipping; 0 or more, NaN or Inf if not finite
    non_finite: int
    clipped: int

    @property
    def records(self) -> int:
        return len(self.norms)

    def finite(self) -> ClippedSum:
        """This sum. Raises ``NotFinite`` for NaN or Inf, which no clipped record can bring."""
        if not bool(self.total.sum().isfinite()):  # factors bound it far below an overflow
            raise NotFinite("a sum of clipped gradients that is not finite: not released")
        return self


@runtime_checkable
class Engine(Protocol):
    """A way to compute a chunk's clipped sum.

    Book-keeping is the one that has several records in a pass through the model, and is watched for
    records that mix (``repro.privacy.gate.watch``); any other takes every record alone.
    """

    name: str
    default_chunk: int

    def reason_against(self, model: nn.Module) -> str | None:
        """Why this engine cannot do this model, if that shows without running it."""
        ...

    def clipped_sum(self, batch: Batch) -> ClippedSum:
        """Of at least one record. The model stays as it was, its ``.grad`` too."""
        ...
