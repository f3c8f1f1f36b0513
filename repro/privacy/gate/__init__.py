"""The gate every private run passes: records do not mix, and the engine gives autograd's numbers.

``check_engine`` tries a model on a few of its records before anything is released, chooses the
fastest engine that is right, and refuses by name what no engine can do. The choice holds for the
state of the model that it was found for, and later steps look again (``watched_sum``).
"""

from repro.privacy.gate.choice import (
    EngineChoice,
    check_again,
    check_engine,
    give_up,
    still_right,
)
from repro.privacy.gate.probe import training_mode
from repro.privacy.gate.watch import Voided, watched_sum

__all__ = [
    "EngineChoice",
    "Voided",
    "check_again",
    "check_engine",
    "give_up",
    "still_right",
    "training_mode",
    "watched_sum",
]
