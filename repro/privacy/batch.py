"""What every engine is given: the records of one pass and how to differentiate and clip them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from repro.privacy.clipping import Clipping

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Records of one model, loss and clipping rule.

    model: (b, …) -> (b, …), records kept apart. loss_fn: (outputs, targets) -> (b,).
    inputs: (B, …), or (B, views, …) when ``views`` > 1. targets: (B, …).
    """

    model: nn.Module
    loss_fn: LossFunction
    inputs: Tensor
    targets: Tensor
    clipping: Clipping
    views: int = 1

    def __len__(self) -> int:
        """Records, each with all its views."""
        return len(self.inputs)

    def chunks(self, largest: int) -> Iterator[Batch]:
        """Parts of at most ``largest`` records, of even sizes: a short last one would cost as
        much as a long one."""
        count = -(-len(self) // largest)
        if count:
            pairs = zip(
                self.inputs.tensor_split(count), self.targets.tensor_split(count), strict=True
            )
            for inputs, targets in pairs:
                yield replace(self, inputs=inputs, targets=targets)

    def rows(self) -> Tensor:
        """Inputs with the views folded into the leading dimension: (B · views, …)."""
        return self.inputs.flatten(0, 1) if self.views > 1 else self.inputs
