"""Noise is never used twice on different sums: a register of what each noise key has covered.

Two sums with the same noise differ by the records alone, so publishing both publishes the
difference without any noise. Within a process every noise key is noted with a digest of the sum
that it covered, before the noise, and of the noise's kind and deviation (``PrivateSum``: of a
party's share with its noise, which for one key is the same question, and of all shares together,
since a sum with one party less has other noise). The same sum again, bit
for bit, is allowed (a replay, a resume): it gives the same release. Anything else is refused: other
records, other parameters, another clip norm or σ, and the same records summed in another order,
whose rounding the difference would show.

Who asks: ``clipped_noisy_sum``, and so every DP-SGD; ``ClipAndNoiseUpdate``; ``PrivateSum``. What
only makes numbers (``gaussian_noise``, ``discrete_gaussian``, ``integer_gaussian``,
``repro.kernels.clip_and_noise``) does not ask: whoever calls it keeps its keys apart.

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
from repro.randomness import RootSeed

MOST_KEYS = 1 << 17  # about 20 MB; beyond it the oldest are forgotten
_ROW = 256  # words of 64 bits that are added up along and across


class NoiseReused(InputError):
    """A noise key that covered something else before; ``where`` names the key, not the seed."""

    def __init__(self, where: str) -> None:
        super().__init__(
            "noise key",
            f"{where} on other data than before",
            "each key of one seed on one batch only: take another seed, party, round or step",
        )


class NoiseKeys:
    """Noise keys used so far, each with a digest of its data; safe to share among threads."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most, self._lock = most, threading.Lock()
        self._used: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._used)

    def use(
        self,
        purpose: str,
        seed: RootSeed,
        data: bytes,
        *,
        party: int | None = None,
        round: int,
        step: int = 0,
    ) -> None:
        """Note that this key covers the data of digest ``data``; refused if it covered other.

        party: None for noise of all of them together.
        """
        who = "all" if party is None else party
        key = seed.derive_bytes(f"noise key {purpose}", who, round, step, size=16)
        whose = "all parties" if party is None else f"party {party}"
        self._note(key, data, f"{whose}, round {round}, step {step}")

    def use_word(self, purpose: str, seed: int, data: bytes, *, step: int) -> None:
        """The same for a key that is two words, 0 … 2⁶⁴ − 1: what counter-keyed noise is of."""
        words = seed.to_bytes(8, "little") + step.to_bytes(8, "little")
        key = hashlib.blake2b(words, key=purpose.encode(), digest_size=16).digest()
        self._note(key, data, f"step {step}")

    def _note(self, key: bytes, data: bytes, where: str) -> None:
        with self._lock:
            known = self._used.setdefault(key, data)
            while len(self._used) > self._most:
                del self._used[next(iter(self._used))]
        if known != data:
            raise NoiseReused(where)

    def clear(self) -> None:
        with self._lock:
            self._used.clear()


noise_keys = NoiseKeys()  # of this process


def new_run(seed: RootSeed) -> None:
    """Forget the keys if ``seed`` is public: its noise hides nothing, and its runs are repeated."""
    if not seed.private:
        noise_keys.clear()


@torch.no_grad()
def digest(*tensors: Tensor, note: str = "") -> bytes:
    """16 bytes naming the contents of tensors, their shapes and types, and ``note``.

    Cheap, on any device: the bytes are taken as 64-bit words in rows of 256, and the sums along and
    across the rows (exact modulo 2⁶⁴) are hashed, so a changed word and two exchanged ones show. It
    tells data apart that were mixed up; it does not withstand forgery.
    """
    state = hashlib.blake2b(note.encode(), digest_size=16)
    for tensor in tensors:
        state.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        if not tensor.numel():
            continue
        plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor.detach()
        data = plain.contiguous().view(-1).view(torch.uint8)
        if data.storage_offset() % 8:  # words are read at multiples of their size
            data = data.clone()
        rows = len(data) // (8 * _ROW)
        whole, rest = data.split([8 * _ROW * rows, len(data) - 8 * _ROW * rows])
        words = whole.view(torch.int64).view(rows, _ROW)
        for part in (words.sum(dim=1), words.sum(dim=0), rest):
            state.update(part.cpu().numpy().tobytes())
    return state.digest()
