"""The one public call, its validation, and the choice of backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
from torch import Tensor

from repro.checks import Number, check_not_negative, check_word64
from repro.errors import InputError, MissingDependency
from repro.privacy import row_sum
from repro.privacy.clipping import Clipping
from repro.privacy.engines.functional import ROW_SUMS
from repro.privacy.noise import add_gaussian_noise
from repro.privacy.row_sum import ClipReport


@overload
def clip_and_noise(
    per_sample: Tensor | Sequence[Tensor],
    *,
    clip_norm: Number,
    noise_multiplier: Number,
    seed: int,
    step: int,
    clipping: str = ...,
    gamma: Number = ...,
    backend: str = ...,
    return_report: Literal[False] = ...,
) -> Tensor: ...
@overload
def clip_and_noise(
    per_sample: Tensor | Sequence[Tensor],
    *,
    clip_norm: Number,
    noise_multiplier: Number,
    seed: int,
    step: int,
    clipping: str = ...,
    gamma: Number = ...,
    backend: str = ...,
    return_report: Literal[True],
) -> tuple[Tensor, ClipReport]: ...
def clip_and_noise(
    per_sample: Tensor | Sequence[Tensor],
    *,
    clip_norm: Number,
    noise_multiplier: Number,
    seed: int,
    step: int,
    clipping: str = "flat",
    gamma: Number = 0.01,
    backend: str = "auto",
    return_report: bool = False,
) -> Tensor | tuple[Tensor, ClipReport]:
    """Σ_i g_i · min(1, C / ‖g_i‖₂) + N(0, (σC)²), the norm being over all parameters.

    per_sample: (B, P), or a list of (B, …) tensors whose flattened rows lie side by side
        (one per parameter). float16, bfloat16, float32 or float64, any strides; B ≥ 0.
    clip_norm: C, finite and above 0. noise_multiplier: σ ≥ 0; the noise has deviation σC.
    seed, step: 0 … 2⁶⁴ − 1; the noise is a function of (seed, step, flat index) alone
        (``repro.privacy.noise``). **Never use a pair twice.**
    clipping, gamma: see ``repro.privacy.clipping.Clipping``.
    backend: ``auto`` is ``triton`` for CUDA tensors where it is installed, else ``torch``.

    Returns (P,) in float32 (float64 for float64 input), and with ``return_report`` the counts.
    A record with NaN or Inf contributes exactly zero and is counted; no records give pure noise.
    """
    rule = Clipping(clip_norm, clipping, gamma)
    noise_multiplier = check_not_negative("noise_multiplier", noise_multiplier)
    seed, step = check_word64("seed", seed), check_word64("step", step)
    rows = _as_rows(per_sample)
    if _chosen(backend, rows) == "triton":
        from repro.kernels.fused import fused_clip_and_noise

        total, report = fused_clip_and_noise(
            rows, rule, noise_multiplier=noise_multiplier, seed=seed, step=step
        )
    else:
        total, report = row_sum.clipped_sum(rows, rule)
        add_gaussian_noise(total, std=noise_multiplier * rule.clip_norm, seed=seed, step=step)
    return (total, report) if return_report else total


def clipped_sum(
    rows: Sequence[Tensor], clipping: Clipping, backend: str = "auto"
) -> tuple[Tensor, ClipReport]:
    """Σ_i factor_i · g_i without noise, for a part of a step's records: **not for release**.

    rows: at least one matrix (B, P_l) of one device, B ≥ 0; types may differ. backend: as in
    ``clip_and_noise``. Returns (P,) in float32 (float64 if any is), and the counts and norms.
    """
    if _chosen(backend, rows) == "torch":
        return row_sum.clipped_sum(rows, clipping)
    from repro.kernels.fused import fused_clip_and_noise

    return fused_clip_and_noise(rows, clipping, noise_multiplier=0, seed=0, step=0)


def use_on_cuda() -> None:
    """From here on the ``vmap`` engine clips and sums on CUDA with the fused kernel's two passes.

    ``repro run`` does so; whoever builds on ``repro.privacy`` alone calls it once. The sum is the
    same to rounding (float32). Without Triton, PyTorch goes on doing it.
    """
    ROW_SUMS["cuda"] = clipped_sum


def _as_rows(per_sample: Tensor | Sequence[Tensor]) -> list[Tensor]:
    tensors = [per_sample] if isinstance(per_sample, Tensor) else list(per_sample)
    if not tensors:
        raise InputError("per_sample", per_sample, "at least one tensor")
    first = tensors[0]
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise InputError("per_sample", type(tensor).__name__, "real floating-point tensors")
        if tensor.ndim < 1 or (isinstance(per_sample, Tensor) and tensor.ndim != 2):
            raise InputError(
                "per_sample", tuple(tensor.shape), "shape (B, P), or a list of shapes (B, …)"
            )
        if tensor.shape[0] != first.shape[0]:
            raise InputError(
                "per_sample",
                [tuple(t.shape) for t in tensors],
                "the same number of records in every tensor",
            )
        if tensor.device != first.device or tensor.dtype != first.dtype:
            raise InputError(
                "per_sample",
                sorted({f"{t.dtype} on {t.device}" for t in tensors}),
                "tensors of one type on one device",
            )
    # reshape(0, -1) is ambiguous, so the columns are counted here.
    return [tensor.reshape(len(tensor), tensor.shape[1:].numel()) for tensor in tensors]


def _chosen(backend: str, rows: Sequence[Tensor]) -> str:
    if backend not in ("auto", "torch", "triton"):
        raise InputError("backend", backend, "auto, torch or triton")
    if backend == "torch" or any(matrix.dtype == torch.float64 for matrix in rows):
        if backend == "triton":
            raise InputError("backend", "triton with float64 gradients", "torch for float64")
        return "torch"
    if backend == "auto" and not rows[0].is_cuda:
        return "torch"
    try:
        import triton  # noqa: F401
    except ImportError:
        if backend == "auto":
            return "torch"
        raise MissingDependency("triton", "the fused kernel", "pip install triton") from None
    return "triton"
