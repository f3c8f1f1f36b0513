"""Positive controls: mechanisms broken in ways that have happened, and which an audit must catch.

``halved`` adds half the stated noise (a sensitivity mistaken by 2). ``discarded`` adds none, as
when a released Flower computed the noise and threw it away. ``unclipped`` adds the stated noise to
what was never clipped. Each is the same code with a setting that contradicts what is stated; what
has no such setting (shares of the noise, vectors scaled to length 1) is broken in this package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from repro.checks import check_choice, check_not_negative

CONTROLS = {
    "halved": "half the stated noise",
    "discarded": "no noise: computed and thrown away, as in the Flower bug",
    "unclipped": "the stated noise, but no clipping",
}
_NO_CLIP = 1e6  # clip norms: longer than any canary

Progress = Callable[[int], None]  # of any audit: told of what has been done since


@dataclass(frozen=True)
class Actual:
    """What is really done, in units of the stated clip norm."""

    noise: float  # standard deviation on the sum
    clip: float


def actual(noise_multiplier: float, control: str | None) -> Actual:
    """What an honest version (None) or a control does where ``noise_multiplier`` is stated."""
    noise_multiplier = check_not_negative("noise_multiplier", noise_multiplier)
    if control is None:
        return Actual(noise_multiplier, 1.0)
    return {
        "halved": Actual(noise_multiplier / 2, 1.0),
        "discarded": Actual(0.0, 1.0),
        "unclipped": Actual(noise_multiplier, _NO_CLIP),
    }[check_choice("control", control, tuple(CONTROLS))]
