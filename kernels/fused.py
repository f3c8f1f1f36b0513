"""The fused Triton kernels: Σ_i factor_i · g_i + N(0, (σC)²), with the global norm.

A record's factor needs its norm over **all** parameters, so the gradients are read twice: once
for the norms (partial sums, no atomics: the same bits every time), once for the weighted sum,
in which the noise is made in registers and added before the only write, of P floats.
PyTorch sees only the B × tensors squared norms in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from repro.errors import InputError
from repro.kernels.philox import normals
from repro.privacy.clipping import Clipping
from repro.privacy.row_sum import ClipReport, report_of
from repro.shapes import Float

_NORM_TILE = 1024
_NORM_CHUNK = 16 * _NORM_TILE  # columns of one program of the norm pass
_ROWS = 4  # records in flight per program of the sum pass


@triton.jit
@no_type_check
def _squared_norms(
    rows,
    partial,
    params,
    row_stride,
    column_stride,
    chunks,
    CHUNK: tl.constexpr,
    TILE: tl.constexpr,
):
    """partial[record, chunk] = Σ g² over the chunk's columns, in float32."""
    record = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1).to(tl.int64)
    total = tl.zeros((TILE,), tl.float32)
    for start in range(0, CHUNK, TILE):
        columns = chunk * CHUNK + start + tl.arange(0, TILE).to(tl.int64)
        pointers = rows + record * row_stride + columns * column_stride
        values = tl.load(pointers, mask=columns < params, other=0.0).to(tl.float32)
        total += values * values
    tl.store(partial + record * chunks + chunk, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["offset", "step_low", "step_high", "key_low", "key_high", "std"])
@no_type_check
def _weighted_sum_and_noise(
    rows,
    factors,
    output,
    records,
    params,
    offset,
    row_stride,
    column_stride,
    factor_stride,
    std,
    step_low,
    step_high,
    key_low,
    key_high,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    NOISE: tl.constexpr,
):
    """output[column] = Σ_record factor · g + std · normal(offset + column).

    Tiles start at multiples of four of the *flat* index, so that a noise block is never split.
    """
    first = (offset // 4) * 4 + tl.program_id(0).to(tl.int64) * TILE
    columns = first - offset + tl.arange(0, TILE).to(tl.int64)
    inside = (columns >= 0) & (columns < params)
    total = tl.zeros((TILE,), tl.float32)
    for start in range(0, records, ROWS):
        record = start + tl.arange(0, ROWS).to(tl.int64)
        factor = tl.load(factors + record * factor_stride, mask=record < records, other=0.0)
        # A record that is not finite has factor 0 and is not even loaded: 0 · NaN is NaN.
        wanted = (factor != 0)[:, None] & inside[None, :]
        pointers = rows + record[:, None] * row_stride + columns[None, :] * column_stride
        values = tl.load(pointers, mask=wanted, other=0.0).to(tl.float32)
        total += tl.sum(values * factor[:, None], axis=0)
    if NOISE:
        total += std * normals(first // 4, step_low, step_high, key_low, key_high, TILE // 4)
    tl.store(output + columns, total, mask=inside)


def fused_clip_and_noise(
    rows: Sequence[Float[Tensor, "records _"]],
    clipping: Clipping,
    *,
    noise_multiplier: float | int,
    seed: int,
    step: int,
) -> tuple[Float[Tensor, " params"], ClipReport]:
    """The kernels on one or more (B, P_l) matrices; arguments as in ``clip_and_noise``.

    rows: float16, bfloat16 or float32, any strides, on CUDA (or on the CPU under
        ``TRITON_INTERPRET=1``). The result is float32.
    """
    device = rows[0].device
    if not rows[0].is_cuda and not triton.knobs.runtime.interpret:
        raise InputError("backend", "triton on a CPU tensor", "torch, or TRITON_INTERPRET=1")
    norms = torch.stack([_norms_of(matrix) for matrix in rows], dim=1)
    factors, finite, clipped = clipping.factors(norms)
    factors = factors.contiguous()
    output = torch.empty(sum(m.shape[1] for m in rows), dtype=torch.float32, device=device)
    offset = 0
    for group, matrix in enumerate(rows):
        params = matrix.shape[1]
        if params:
            tile = _tile_for(params, device)
            _weighted_sum_and_noise[(triton.cdiv(params + offset % 4, tile),)](
                matrix,
                factors[:, group],
                output[offset : offset + params],
                matrix.shape[0],
                params,
                offset,
                *matrix.stride(),
                factors.stride(0),
                float(noise_multiplier * clipping.clip_norm),
                step & 0xFFFFFFFF,
                step >> 32,
                seed & 0xFFFFFFFF,
                seed >> 32,
                TILE=tile,
                ROWS=_ROWS,
                NOISE=noise_multiplier > 0,
            )
        offset += params
    return output, report_of(norms, finite, clipped)


def _norms_of(matrix: Tensor) -> Tensor:
    records, params = matrix.shape
    chunks = triton.cdiv(params, _NORM_CHUNK)
    partial = torch.empty((records, chunks), dtype=torch.float32, device=matrix.device)
    if records and params:
        _squared_norms[(records, chunks)](
            matrix, partial, params, *matrix.stride(), chunks, CHUNK=_NORM_CHUNK, TILE=_NORM_TILE
        )
    return partial.sum(dim=1)


def _tile_for(params: int, device: torch.device) -> int:
    """Columns per program: wide for bandwidth, but at least four programs per multiprocessor."""
    if device.type != "cuda":
        return 1024
    programs = 4 * torch.cuda.get_device_properties(device).multi_processor_count
    wanted = triton.next_power_of_2(max(1, params // programs))
    result: int = min(1024, max(128, wanted))
    return result
