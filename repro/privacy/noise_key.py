"""Noise is never used twice on different data: a register of what each noise key has covered.

Two sums with the same noise differ by the records alone, so publishing both publishes the
difference without any noise. Within a process every noise key, (seed, hospital, round, step), is
noted with a digest of the data it covered: the same data again (a replay, a resume) is allowed,
since it gives the same bits; other data is refused.

Other processes are not seen. What keeps them apart is the seed, from the operating system's
entropy in a private run. A run with a public seed is repeatable and not private, and says so;
``new_run`` starts its register anew, so that a series of such runs may share one process.
"""

from __future__ import annotations

import hashlib
import threading

import torch
from torch import Tensor

from repro.errors import InputError
from repro.random import RootSeed

MOST_KEYS = 1 << 17  # about 20 MB; beyond it the oldest are forgotten
_SAMPLED = 64  # elements of a record that enter the digest as they are

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class NoiseKeys:
    """Noise keys used so far, each with a digest of its data; safe to share among threads."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most, self._lock = most, threading.Lock()
        self._used: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._used)

    def use(
        self, purpose: str, seed: RootSeed, data: bytes, *, hospital: int, round: int, step: int = 0
    ) -> None:
        """Note that this key covers the data of digest ``data``; refused if it covered other."""
        key = seed.derive_bytes(f"noise key {purpose}", hospital, round, step, size=16)
        with self._lock:
            known = self._used.setdefault(key, data)
            while len(self._used) > self._most:
                del self._used[next(iter(self._used))]
        if known != data:
            raise InputError(
                "noise key",
                f"hospital {hospital}, round {round}, step {step} on other data than before",
                "each key of one seed on one batch only: take another seed, hospital or round",
            )

    def clear(self) -> None:
        with self._lock:
            self._used.clear()


noise_keys = NoiseKeys()  # of this process


def new_run(seed: RootSeed) -> None:
    """Forget the keys if ``seed`` is public: its noise hides nothing, and its runs are repeated."""
    if seed.source == "user seed":
        noise_keys.clear()


@torch.no_grad()
def digest(*tensors: Tensor) -> bytes:
    """16 bytes naming the contents of tensors with records first, cheaply and on any device.

    Of each record the sum of its words (exact modulo 2⁶⁴, so in no order) and some of its elements
    are hashed. It tells data apart that were mixed up; it does not withstand forgery.
    """
    state = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        state.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        if not tensor.numel():
            continue
        plain = tensor.detach()
        if plain.is_complex():
            plain = torch.view_as_real(plain)
        rows = plain.reshape(len(plain), -1).contiguous()
        words = rows.view(_INTEGERS[rows.element_size()])
        stride = max(1, words.shape[1] // _SAMPLED)
        for part in (words.sum(dim=1, dtype=torch.int64), words[:, ::stride].contiguous()):
            state.update(part.cpu().numpy().tobytes())
    return state.digest()
