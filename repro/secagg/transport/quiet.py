"""A log that a crowd of strangers cannot fill: some lines at once, then a count now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

Report = Callable[[str], None]
_BURST, _INTERVAL = 5, 60.0  # lines of one kind, seconds


class Quiet:
    """Passes ``burst`` lines on in each ``interval`` of seconds; the next line after it says how
    many were left out. So a flood writes at most burst + 1 lines a minute."""

    def __init__(self, report: Report, burst: int = _BURST, interval: float = _INTERVAL) -> None:
        self._report, self._burst, self._interval = report, burst, interval
        self._began, self._passed, self._left_out = float("-inf"), 0, 0

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now > self._began + self._interval:
            if self._left_out:
                self._report(f"{self._left_out} more lines like the ones before were left out")
            self._began, self._passed, self._left_out = now, 0, 0
        if self._passed < self._burst:
            self._passed += 1
            self._report(line)
        else:
            self._left_out += 1


class Once:
    """Passes a line on unless it was said within the last ``interval`` seconds; for what is the
    same at every try."""

    def __init__(self, report: Report, interval: float = _INTERVAL) -> None:
        self._report, self._interval = report, interval
        self._said: dict[str, float] = {}

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        self._said = {text: at for text, at in self._said.items() if now < at + self._interval}
        if line not in self._said:
            self._said[line] = now
            self._report(line)
