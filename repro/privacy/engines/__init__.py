"""Ways to the same clipped sum of per-sample gradients, and the choice between them.

- ``vmap``: the reference; any model; B × P gradients in chunks.
- ``bookkeeping``: one ordinary backward pass, per-layer rules; models of known layers.
- ``auto``: ``bookkeeping`` where it applies, else ``vmap``, and the result says which.

An engine knows nothing of noise; the step that adds it is ``repro.privacy.step``.
"""

from repro.privacy.engines.base import ClippedSum, Engine, Unsupported
from repro.privacy.engines.registry import ENGINES, choose

__all__ = ["ENGINES", "ClippedSum", "Engine", "Unsupported", "choose"]
