"""A private gradient between its release and the optimizer's step, held to what it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from repro.errors import InputError
from repro.privacy.validation import same_contents


class ReleasedGradient:
    """Puts ``values`` into ``.grad`` of ``parameters``, and nothing into the optimizer's others'.

    ``loss.backward()`` adds to ``.grad`` what no noise covers, and autograd leaves no trace of it
    but the numbers, so these are compared with copies.
    """

    def __init__(
        self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], values: Sequence[Tensor]
    ) -> None:
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter in self._parameters:
            parameter.grad = None  # whatever was left there has no noise
        self._released: dict[int, Tensor] = {}
        for parameter, value in zip(parameters, values, strict=True):
            parameter.grad = value
            self._released[id(parameter)] = value.detach().clone()

    def dropped(self) -> bool:
        """Whether no gradient stands there any more (``zero_grad``)."""
        return not any(p.grad is not None and bool(p.grad.any()) for p in self._parameters)

    def check(self) -> None:
        """Raise InputError unless these gradients, and no others, stand there unchanged."""
        for parameter in self._parameters:
            released = self._released.get(id(parameter))
            if released is None:
                unchanged = parameter.grad is None
            else:
                unchanged = parameter.grad is not None and same_contents(parameter.grad, released)
            if not unchanged:
                raise InputError(
                    "optimizer.step()",
                    "another gradient than the one that backward() left",
                    "that one as it was: what loss.backward() adds has no noise",
                )
