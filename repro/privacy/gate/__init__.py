"""The gate every private run passes: records do not mix, and the engine gives autograd's numbers.

``check_engine`` tries a model on a few of its records before anything is released, pins the
fastest engine that is right, and refuses by name what no engine can do.
"""

from repro.privacy.gate.choice import EngineChoice, check_engine
from repro.privacy.gate.probe import training_mode

__all__ = ["EngineChoice", "check_engine", "training_mode"]
