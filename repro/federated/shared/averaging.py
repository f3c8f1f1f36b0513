"""A moving average of the models, released in place of the last one.

Every model after a private sum is public, so their average is post-processing and costs no
privacy; what noise the single models carry partly averages out (De et al. 2022, arXiv 2204.13650,
"parameter averaging"). Training itself goes on from the last iterate, as if there were no average.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from repro.privacy.dpsgd import ParameterAverage


class Averaging:
    """decay: of ``ParameterAverage``, in (0, 1), a step; 0: no average, the last iterate is it.

    ``working`` is always the same model: the one that the steps change.
    """

    def __init__(self, working: nn.Module, decay: float) -> None:
        self.working, self.decay = working, decay
        self._average: ParameterAverage | None = None
        self._resumed: dict[str, Any] | None = None

    def begin_round(self, released: nn.Module) -> None:
        """Make ``working`` what the round starts at: ``released``, or the last iterate."""
        if self._average is not None:
            return
        self.working.load_state_dict(released.state_dict())
        if not self.decay:
            return
        resumed = self._resumed
        if resumed is not None:
            self.working.load_state_dict(resumed["iterate"])
        self._average = ParameterAverage(dict(self.working.named_parameters()), self.decay)
        if resumed is not None:
            self._average.load_state_dict(resumed["average"])

    def note_step(self) -> None:
        """After every step that was taken."""
        if self._average is not None:
            self._average.update(dict(self.working.named_parameters()))

    @torch.no_grad()
    def release_into(self, model: nn.Module) -> None:
        """Write what is evaluated after the round into ``model``."""
        for mine, theirs in zip(model.parameters(), self.working.parameters(), strict=True):
            mine.copy_(theirs)
        if self._average is not None:
            self._average.copy_to(dict(model.named_parameters()))

    def state_dict(self) -> dict[str, Any]:
        """Empty without an average: the released model is then the whole state."""
        if self._average is None:
            return {}
        iterate = {name: value.clone() for name, value in self.working.state_dict().items()}
        return {"iterate": iterate, "average": self._average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._average, self._resumed = None, state or None
