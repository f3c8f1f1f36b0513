"""Mean, deviation and interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """``mean`` and sample standard deviation of ``n`` values (``deviation`` is None for one)."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[int | float]) -> Summary | None:
        """None without values. Two-pass in float64; divisor n − 1."""
        if not values:
            return None
        n = len(values)
        mean = math.fsum(values) / n
        if n == 1:
            return cls(mean, None, 1)
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(mean, math.sqrt(squares / (n - 1)), n)

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float] | None:
        """Student's t interval for the mean; None with fewer than two values.

        mean ± t_{n−1, (1+confidence)/2} · s/√n (Student 1908). It assumes that seeds are
        independent and roughly normal.
        """
        if self.deviation is None:
            return None
        from scipy.special import stdtrit

        quantile = float(stdtrit(self.n - 1, (1 + confidence) / 2))
        half = quantile * self.deviation / math.sqrt(self.n)
        return self.mean - half, self.mean + half


def binomial_error(fraction: float, images: int) -> float:
    """√(p(1 − p)/n): the standard error of a fraction p of n independent images."""
    return math.sqrt(fraction * (1 - fraction) / images)


def percent(summary: Summary | None, *, digits: int = 2) -> str:
    """A fraction as ``97.12 ± 0.21`` (per cent); one seed has no ``±``."""
    if summary is None:
        return "not run"
    mean = f"{100 * summary.mean:.{digits}f}"
    if summary.deviation is None:
        return mean
    return f"{mean} ± {100 * summary.deviation:.{digits}f}"


def percent_interval(bounds: tuple[float, float] | None, *, digits: int = 2) -> str:
    """``[96.90, 97.31]`` in per cent, cut at 0 and 100; empty without an interval."""
    if bounds is None:
        return ""
    low, high = (100 * min(max(bound, 0.0), 1.0) for bound in bounds)
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
