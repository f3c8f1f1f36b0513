"""Philox4x32-10 and Box–Muller in Triton: the integers of ``repro.randomness.philox4x32``.

The floats agree with ``repro.privacy.noise`` to ``NORMAL_TOLERANCE``: both take the logarithm
in float64, and the rest is float32 here.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

NORMAL_TOLERANCE = 4e-6  # absolute, for N(0, 1); float32 rounding of the angle times 6.76 σ

# Kernels are ``no_type_check``: a wrapper around a function hides it from Triton's compiler.
_M0 = tl.constexpr(0xD2511F53)
_M1 = tl.constexpr(0xCD9E8D57)
_W0 = tl.constexpr(0x9E3779B9)
_W1 = tl.constexpr(0xBB67AE85)


@triton.jit
@no_type_check
def philox_words(block, step_low, step_high, key_low, key_high):
    """Four uint32 words per entry of ``block`` (int64); the other arguments are int64 scalars."""
    c0 = (block & 0xFFFFFFFF).to(tl.uint32)
    c1 = (block >> 32).to(tl.uint32)
    c2 = (block * 0 + step_low).to(tl.uint32)
    c3 = (block * 0 + step_high).to(tl.uint32)
    k0 = (block * 0 + key_low).to(tl.uint32)
    k1 = (block * 0 + key_high).to(tl.uint32)
    m0 = tl.full(c0.shape, _M0, tl.uint32)
    m1 = tl.full(c0.shape, _M1, tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, m0), c0 * m0
        high1, low1 = tl.umulhi(c2, m1), c2 * m1
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = k0 + tl.full(k0.shape, _W0, tl.uint32)
        k1 = k1 + tl.full(k1.shape, _W1, tl.uint32)
    return c0, c1, c2, c3


@triton.jit
@no_type_check
def normal_pair(word0, word1):
    """Two float32 standard normals from two uint32 words."""
    uniform = (word0.to(tl.float64) + 0.5) * 2.3283064365386963e-10  # 2⁻³²
    radius = tl.sqrt((-2.0 * tl.log(uniform)).to(tl.float32))
    angle = ((word1.to(tl.float64) + 0.5) * 1.4629180792671596e-09).to(tl.float32)  # 2π · 2⁻³²
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
@no_type_check
def normals(first_block, step_low, step_high, key_low, key_high, BLOCKS: tl.constexpr):
    """4 · BLOCKS normals of the blocks from ``first_block`` on, in flat parameter order."""
    block = first_block + tl.arange(0, BLOCKS).to(tl.int64)
    w0, w1, w2, w3 = philox_words(block, step_low, step_high, key_low, key_high)
    n0, n1 = normal_pair(w0, w1)
    n2, n3 = normal_pair(w2, w3)
    return tl.interleave(tl.interleave(n0, n2), tl.interleave(n1, n3))
