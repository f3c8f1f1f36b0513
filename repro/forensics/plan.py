"""What is asked of every release and of our code: settings, releases, arrangements."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# The last release that discards the noise, and the first that adds it [flwr].
RELEASES = ("1.13.1", "1.14.0")


@dataclass(frozen=True)
class Arrangement:
    """What a client registers, outermost first, and how the server runs a round.

    mods: of ``local-dp`` (LocalDpMod), ``secagg`` (secaggplus_mod), ``size``
        (parameters_size_mod). secure: SecAggPlusWorkflow, else Flower's default fit workflow.
    """

    name: str
    words: str
    mods: tuple[str, ...]
    secure: bool


# From the public history of the authors' repository [code A], and from Flower's documentation.
ARRANGEMENTS = (
    Arrangement(
        "dp-alone-secure",
        "local DP alone, server runs SecAgg+ (2024-11-17)",
        ("local-dp", "size"),
        True,
    ),
    Arrangement(
        "dp-outermost-secure",
        "local DP outermost, then SecAgg+ (since 2024-12-12)",
        ("local-dp", "secagg", "size"),
        True,
    ),
    Arrangement(
        "dp-alone-default",
        "local DP alone, default workflow (commented out, 2024-11-17)",
        ("local-dp", "size"),
        False,
    ),
    Arrangement(
        "secagg-outermost-secure",
        "SecAgg+ outermost, then local DP (Flower's documentation)",
        ("secagg", "local-dp"),
        True,
    ),
)
RUNNABLE = ARRANGEMENTS[-1].name  # in which a federation too small is told from a wrong order


@dataclass(frozen=True)
class Settings:
    """The authors' privacy and SecAgg+ settings [code A], around models that are plain arrays.

    hospitals: the fewest that 5 shares with a threshold of 4 take; ``inside`` measures it.
    shapes: of a model's arrays. norm: L2 norm of a hospital's update, so that it is clipped.
    draws: how often one update goes through the modifier alone.
    """

    clip_norm: float = 7.0
    sensitivity: float = 1.0
    epsilon: float = 6.0
    delta: float = 1.9e-4
    shares: int = 5
    threshold: int = 4
    max_weight: int = 10_000
    hospitals: int = 4
    rounds: int = 2
    examples: int = 1_000
    shapes: tuple[tuple[int, ...], ...] = ((100, 60), (4_000,))
    norm: float = 14.0
    draws: int = 100
    seed: int = 0

    @property
    def size(self) -> int:
        """Parameters of a model."""
        return sum(math.prod(shape) for shape in self.shapes)

    def updates(self) -> np.ndarray:
        """A fixed update for every hospital, (hospitals, size) float32, each of length norm."""
        drawn = np.random.default_rng(self.seed).standard_normal((self.hospitals, self.size))
        lengths = np.linalg.norm(drawn, axis=1, keepdims=True)
        return np.asarray(drawn * (self.norm / lengths), dtype=np.float32)

    def question(self) -> dict[str, Any]:
        """All that ``inside`` has to know, as JSON."""
        return {
            **asdict(self),
            "arrangements": [asdict(one) for one in ARRANGEMENTS],
            "probe": RUNNABLE,
        }
