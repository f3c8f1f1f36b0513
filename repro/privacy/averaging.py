"""Exponential moving average of parameters: post-processing, so it costs no privacy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class ParameterAverage:
    """θ̄ ← d θ̄ + (1 − d) θ after every step, d = min(decay, (1 + t) / (10 + t)).

    The warm-up of d is that of De et al. 2022 (arXiv 2204.13650, appendix C): early averages
    forget the initial parameters quickly.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor]) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach(), 1 - decay)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, parameters: Mapping[str, Tensor]) -> None:
        for name, value in self.values.items():
            parameters[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {
            "updates": self.updates,
            "values": {name: value.clone() for name, value in self.values.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.values = {name: value.clone() for name, value in state["values"].items()}
