"""One root seed per run, and every other key derived from it by name.

``derive(purpose, *ids)`` hashes (root, purpose, ids) with BLAKE2b (RFC 7693), so streams for
different purposes, hospitals or rounds are unrelated, and adding one never shifts another.
A *reproducible* seed and a *private* one are different things: noise from a published seed
can be subtracted by anyone, so each seed knows, and records, where it came from.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from repro.checks import check_word64, plain

if TYPE_CHECKING:
    import numpy as np
    import torch

Source = Literal["user seed", "operating system entropy"]
ROOT_BYTES = 32


@dataclass(frozen=True)
class RootSeed:
    """The 256-bit root of a run's randomness. ``repr`` never shows it."""

    root: bytes = field(repr=False)
    source: Source

    @classmethod
    def from_user(cls, seed: int) -> RootSeed:
        """Reproducible: the same integer gives the same bits. Not private."""
        seed = check_word64("seed", seed)
        root = hashlib.blake2b(b"repro user seed" + seed.to_bytes(8, "little"), digest_size=32)
        return cls(root.digest(), "user seed")

    @classmethod
    def from_entropy(cls) -> RootSeed:
        """Private: 256 bits from the operating system."""
        return cls(secrets.token_bytes(ROOT_BYTES), "operating system entropy")

    @property
    def private(self) -> bool:
        """Nobody else knows it: the noise drawn from it hides something."""
        return self.source != "user seed"

    def derive_bytes(self, purpose: str, *ids: int | str, size: int = 32) -> bytes:
        """``size`` (≤ 64) bytes for this purpose and these ids.

        Every part is length-prefixed, so no two different (purpose, ids) hash alike.
        """
        message = b"".join(
            len(part).to_bytes(4, "little") + part
            for part in [purpose.encode(), *(repr(plain(i)).encode() for i in ids)]
        )
        return hashlib.blake2b(message, key=self.root, digest_size=size).digest()

    def derive(self, purpose: str, *ids: int | str) -> int:
        """A 64-bit integer key, e.g. for Philox4x32 (its whole key space)."""
        return int.from_bytes(self.derive_bytes(purpose, *ids, size=8), "little")

    def torch_generator(self, purpose: str, *ids: int | str) -> torch.Generator:
        """A CPU ``torch.Generator`` seeded by this stream."""
        import torch

        generator = torch.Generator()
        generator.manual_seed(self.derive(purpose, *ids) >> 1)  # manual_seed takes 63 bits
        return generator

    def numpy_generator(self, purpose: str, *ids: int | str) -> np.random.Generator:
        """A NumPy ``Generator`` (PCG64) seeded by this stream's 256 bits."""
        import numpy as np

        return np.random.default_rng(int.from_bytes(self.derive_bytes(purpose, *ids), "little"))
