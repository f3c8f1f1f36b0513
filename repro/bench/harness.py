"""Timing and peak memory of contestants in one run."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


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


def _report_peak(call: Callable[[], object], pipe: Any) -> None:
    before = _peak_rss_bytes()
    call()
    pipe.send((before, _peak_rss_bytes()))


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
    return {"peak_mib": peak / 2**20, "start_mib": before / 2**20}


def _peak_rss_bytes() -> int:
    """Highest resident size of this process.

    Linux's ``ru_maxrss`` survives exec, so a small child of a large parent would report the
    parent's; ``VmHWM`` starts afresh.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


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
