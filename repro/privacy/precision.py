"""Full-precision arithmetic for what bounds a record's contribution.

Autocast, TF32 and bfloat16 matrix products round their factors to 8 or 11 bits: a norm or a
weighted sum made of them can be off by a part in a thousand, and the clip bound with it. The
model's own forward and backward pass may run in any precision; these steps may not.

**Why the bound holds in bf16-mixed.** Let a record's operands be what the passes left of it: its
gradient (vmap, stacked), or a layer's input x̂ and output gradient ĝ (book-keeping), whatever
rounding made them; in a model that mixes no records they depend on that record alone. Both the
norm and the weighted sum are float32 functions of these same operands, widened without change
(every bfloat16 number is a float32 number): n̂ of Σ_t x̂_t ĝ_t', and c·(Σ_t x̂_t ĝ_t') with c =
min(1, C/n̂). Their float32 rounding, parts in a million, is that of float32 training. A kept
gradient of one layer may itself be made in bfloat16 (``conv.py``): n̂ and the sum are then of that
gradient, widened. So a record moves the sum by at most C however far its operands are from the
exact gradient's. Products in bfloat16 after the norm was taken would round operands again, and the
sum would be of other vectors than the norm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and float32 products of float32 factors, on this device."""
    with contextlib.ExitStack() as stack:
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_float32_matmul_precision() != "highest":
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
            stack.callback(setattr, torch.backends.cudnn, "allow_tf32", True)
            torch.backends.cudnn.allow_tf32 = False
        yield


def widened(values: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; everything else as it is."""
    if values.is_floating_point() and values.dtype.itemsize < 4:
        return values.float()
    return values
