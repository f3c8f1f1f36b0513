"""Timing and peak memory of contestants in one run."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from repro.errors import InputError

Given = TypeVar("Given")


@dataclass(frozen=True)
class Row:
    """One measured quantity of one contestant. Percentiles are over the repeats."""

    name: str
    metric: str  # what was measured, e.g. "step time"
    unit: str  # "s", "MiB", "images/s", …
    median: float
    p20: float
    p80: float
    repeats: int
    relative: float | None = None  # median over the baseline's median, when there is one
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def over(self, base: float) -> Row:
        """Beside a baseline's median."""
        return replace(self, relative=self.median / base)

    @classmethod
    def of(cls, name: str, metric: str, unit: str, values: Sequence[float], **more: Any) -> Row:
        """Median, p20 and p80 (nearest-rank) of ``values``."""
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(
            name=name,
            metric=metric,
            unit=unit,
            median=statistics.median(ordered),
            p20=ordered[round(0.2 * last)],
            p80=ordered[round(0.8 * last)],
            repeats=len(ordered),
            **more,
        )


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 1,
    synchronize: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each call, contestants taking turns.

    synchronize: called before and after each timed call (``torch.cuda.synchronize`` on CUDA).
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warmup + repeats):
        for name, call in contestants.items():
            synchronize()
            started = time.perf_counter()
            call()
            synchronize()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def take_turns(
    label: str, contestants: Mapping[str, Callable[[], Given]], repeats: int
) -> dict[str, list[Given]]:
    """What each call gives, contestants taking turns, said on stderr; the first turn warms up."""
    found: dict[str, list[Given]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, play in contestants.items():
            print(f"{label}: {name}, round {turn} of {repeats}", file=sys.stderr)
            given = play()
            if turn:
                found[name].append(given)
    return found


def device_of(choice: str) -> str:
    """ "cpu" or "cuda"; of "auto" the latter where there is one. InputError where there is none."""
    import torch

    cuda = torch.cuda.is_available()
    if choice == "cuda" and not cuda:
        raise InputError("--device", choice, "cpu: this machine has no CUDA device")
    return ("cuda" if cuda else "cpu") if choice == "auto" else choice


def synchronize_on(device: str) -> Callable[[], object]:
    """What ``interleave`` waits with for the device to have done what it was given."""
    import torch

    return torch.cuda.synchronize if device != "cpu" else lambda: None


def _report_peak(call: Callable[[], object], pipe: Any) -> None:
    before = peak_mib()
    call()
    pipe.send((before, peak_mib()))


def peak_memory(call: Callable[[], object]) -> dict[str, float]:
    """Peak resident memory of ``call`` in a fresh process, in MiB.

    call: picklable (a module-level function or ``functools.partial`` of one); sets up what it
        needs itself. Returns ``peak_mib`` and ``start_mib`` (before the call, imports included).
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_report_peak, args=(call, there))
    child.start()
    there.close()
    try:
        before, peak = here.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"the measured process ended with status {child.exitcode}") from None
    child.join()
    return {"peak_mib": peak, "start_mib": before}


def peak_mib() -> float:
    """Highest resident size of this process.

    Linux's ``ru_maxrss`` survives exec, so a small child of a large parent would report the
    parent's; ``VmHWM`` starts afresh.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, else KiB


def format_rows(rows: Sequence[Row]) -> str:
    """The rows as a plain-text table."""
    header = ("contestant", "metric", "median", "p20", "p80", "unit", "n", "relative", "note")
    body = [
        (
            row.name,
            row.metric,
            f"{row.median:.4g}",
            f"{row.p20:.4g}",
            f"{row.p80:.4g}",
            row.unit,
            str(row.repeats),
            "" if row.relative is None else f"{row.relative:.2f}×",
            row.note,
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [header, *body]
    )
