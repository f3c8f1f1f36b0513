"""Ways to the same clipped sum of per-sample gradients, and the choice between them.

- ``vmap``: the reference; any model; B × P gradients in chunks.
- ``bookkeeping``: one ordinary backward pass, per-layer rules; models of known layers.
- ``auto``: ``bookkeeping`` where it applies, else ``vmap``, and the result says which.

An engine knows nothing of noise; the step that adds it is ``repro.privacy.step``.
"""

from torch import nn

from repro.errors import InputError
from repro.privacy.engines.base import ClippedSum, Engine, Unsupported
from repro.privacy.engines.bookkeeping import BookKeeping
from repro.privacy.engines.functional import Functional

__all__ = ["ENGINES", "ClippedSum", "Engine", "Unsupported", "choose"]

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (BookKeeping(), Functional())}


def choose(name: str, model: nn.Module) -> Engine:
    """The engine called ``name``; for ``auto``, the fastest that can do this model.

    Book-keeping wins wherever it applies (``repro bench dpsgd``): it differentiates once, in
    batches, and never holds all per-sample gradients.
    """
    if name == "auto":
        fast = ENGINES["bookkeeping"]
        return ENGINES["vmap"] if fast.reason_against(model) else fast
    if name not in ENGINES:
        raise InputError("engine", name, f"one of auto, {', '.join(ENGINES)}")
    reason = ENGINES[name].reason_against(model)
    if reason:
        raise Unsupported("engine", name, f"vmap or auto for this model: {reason}")
    return ENGINES[name]
