"""Keyed randomness: who draws what is a function of (seed, purpose, ids), never of call order.

- ``philox``: the counter-based generator, on NumPy arrays and torch tensors alike;
- ``streams``: one root seed per run, and the keys derived from it.
"""

from repro.randomness.philox import philox4x32, philox4x32_blocks
from repro.randomness.streams import RootSeed

__all__ = ["RootSeed", "philox4x32", "philox4x32_blocks"]
