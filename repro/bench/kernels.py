"""``repro bench kernels``: clip-and-noise against eager PyTorch and ``torch.compile``, in one run.

The figure is achieved GB/s over the device's copy bandwidth, counting two reads of B × P and one
write of P, which is the least that a global norm allows. The Triton kernel needs CUDA; on a CPU
only the PyTorch backend is measured, and the report says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from repro import kernels
from repro.bench import Row, interleave
from repro.bench.harness import device_of, synchronize_on
from repro.progress import progress
from repro.runs.provenance import environment

CALL: dict[str, Any] = {"clip_norm": 1.0, "noise_multiplier": 1.0, "seed": 1, "step": 1}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=int, nargs="+", default=[1, 16, 64, 256], metavar="B")
    parser.add_argument(
        "--params", type=int, nargs="+", default=[100_000, 1_000_000, 4_800_000], metavar="P"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=11, help="timed calls of each (11)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    device = device_of(arguments.device)
    copy = _copy_bandwidth(device, arguments.repeats)
    rows = [copy]
    shapes = [(b, p) for b in arguments.records for p in arguments.params]
    for records, params in progress(shapes, desc="shapes", unit="shape"):
        if not _fits(records, params, device):
            note = "not run: does not fit in memory"
            rows.append(
                Row.of(f"B={records} P={params}", "bandwidth", "GB/s", [float("nan")], note=note)
            )
            continue
        dtype = getattr(torch, arguments.dtype)
        gradients = torch.randn(records, params, device=device).to(dtype)
        rows += _shape_rows(gradients, device, arguments.repeats, copy.median)
    where = environment(("torch", "triton"))
    where["dtype"] = arguments.dtype
    if device == "cpu":
        where["triton kernel"] = "not run: no CUDA device"
    return rows, where


def _shape_rows(gradients: Tensor, device: str, repeats: int, copy: float) -> list[Row]:
    """Achieved GB/s of every contestant; ``relative`` is over the copy bandwidth."""
    calls = _contestants(gradients, device)
    seconds = interleave(calls, repeats=repeats, warmup=2, synchronize=synchronize_on(device))
    traffic = 2 * gradients.numel() * gradients.element_size() + 4 * gradients.shape[1]
    rows = []
    for name, values in seconds.items():
        label = f"{name} B={gradients.shape[0]} P={gradients.shape[1]}"
        rates = [traffic / value / 1e9 for value in values]
        row = Row.of(label, "bandwidth", "GB/s", rates, detail={"seconds": sorted(values)})
        rows.append(row.over(copy))
    return rows


def _contestants(gradients: Tensor, device: str) -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {
        "ours, torch": lambda: kernels.clip_and_noise(gradients, backend="torch", **CALL),
        "eager": lambda: _eager(gradients),
    }
    if device == "cuda":
        compiled = torch.compile(_eager)
        calls["torch.compile"] = lambda: compiled(gradients)
        calls["ours, triton"] = lambda: kernels.clip_and_noise(gradients, backend="triton", **CALL)
    return calls


def _eager(gradients: Tensor) -> Tensor:
    """What one writes by hand; its noise is ``torch.randn``'s, not keyed by a counter."""
    rows = gradients.float()
    factors = (1.0 / rows.norm(dim=1)).clamp(max=1.0)
    total = (rows * factors[:, None]).sum(dim=0)
    result: Tensor = total + torch.randn_like(total)
    return result


def _copy_bandwidth(device: str, repeats: int) -> Row:
    """GB/s of a device-to-device copy of 256 MiB, one read and one write."""
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    seconds = interleave(
        {"copy": lambda: target.copy_(source)},
        repeats=repeats,
        warmup=2,
        synchronize=synchronize_on(device),
    )["copy"]
    rates = [2 * source.numel() * 4 / value / 1e9 for value in seconds]
    return Row.of("device copy", "bandwidth", "GB/s", rates, relative=1.0)


def _fits(records: int, params: int, device: str) -> bool:
    """The eager contestant holds about three times the gradients; 4 GiB is the CPU's share."""
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else 4 << 30
    return 3 * 4 * records * params < free
