"""Progress on stderr: a bar on a terminal, now and then a plain line where stderr is a file.

A log keeps every character it is sent: a bar that redraws itself would leave thousands of
half lines and carriage returns there. Off a terminal, one whole line at most every
``SECONDS_BETWEEN_LINES`` says how far things are and how long they will take, and one more what
came of them.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Generic, Protocol, TextIO, TypeVar, cast, runtime_checkable

Number = float | int  # an int is a float to mypy, but not to the run-time checker of the tests
Item = TypeVar("Item")
Given = TypeVar("Given", covariant=True)
SECONDS_BETWEEN_LINES = 30.0


@runtime_checkable
class Progress(Protocol[Given]):
    """What callers may use of either: iteration, or these in a ``with`` block."""

    n: Number

    def update(self, n: Number = 1) -> object: ...
    def set_postfix_str(self, s: str = "") -> object: ...
    def close(self) -> object: ...
    def __iter__(self) -> Iterator[Given]: ...
    def __enter__(self) -> Progress[Given]: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> object: ...


class Lines(Generic[Item]):
    """The same few methods as a ``tqdm`` bar, written as lines."""

    def __init__(
        self,
        items: Iterable[Item] = (),
        *,
        total: Number | None = None,
        initial: Number = 0,
        desc: str = "",
        unit: str = "",
        file: io.TextIOBase | TextIO | None = None,
        seconds: Number | None = None,
        brief: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """seconds: least time between two lines, ``SECONDS_BETWEEN_LINES`` unless said.
        brief: nothing at all is said where the whole takes less."""
        self.n: Number = initial
        self.total = total
        self._items, self._desc, self._unit, self._postfix = items, desc, unit, ""
        self._file = file or sys.stderr
        self._seconds = SECONDS_BETWEEN_LINES if seconds is None else seconds
        self._clock, self._begun = clock, clock()
        self._spoke, self._shown = self._begun, ""
        self._first: tuple[float, Number] | None = None  # (time, count) of the first step
        self._brief, self._closed = brief, False

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def update(self, n: Number = 1) -> None:
        self.n += n
        if self._first is None:
            self._first = (self._clock(), self.n)
        self._speak_if_due()

    def set_postfix_str(self, s: str = "") -> None:
        self._postfix = s
        self._speak_if_due()

    def close(self) -> None:
        """The last line, unless it would say what the one before said."""
        if not self._closed:
            self._closed = True
            if not (self._brief and self._spoke == self._begun):
                self._speak()

    def __enter__(self) -> Lines[Item]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What ends by an exception has its own last words."""
        self._closed = self._closed or kind is not None
        self.close()

    def _speak_if_due(self) -> None:
        if self._clock() - self._spoke >= self._seconds:
            self._speak()

    def _speak(self) -> None:
        self._spoke = self._clock()
        count = f"{self.n:g}" + (f" of {self.total:g}" if self.total is not None else "")
        done = " ".join(part for part in (count, f"{self._unit}s" if self._unit else "") if part)
        said = ", ".join(part for part in (done, self._postfix) if part)
        if said != self._shown:
            self._shown = said
            times = _clock_face(self._spoke - self._begun) + self._left()
            print(f"{self._desc}: {said} ({times})", file=self._file, flush=True)

    def _left(self) -> str:
        """``, about 3:20 left``, at the rate since the first step, which a resumption jumps at."""
        if self._first is None or self.total is None or not self.n < self.total:
            return ""
        then, count = self._first
        if self.n <= count or self._spoke <= then:
            return ""
        left = (float(self.total) - self.n) * (self._spoke - then) / (self.n - count)
        return f", about {_clock_face(left)} left"


def _clock_face(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


class Silence(Lines[Item]):
    """Progress that nobody is told of."""

    def _speak(self) -> None:
        pass


def progress(
    items: Iterable[Item] = (),
    *,
    total: Number | None = None,
    initial: Number = 0,
    desc: str = "",
    unit: str = "",
    quiet: bool = False,
    brief: bool = False,
) -> Progress[Item]:
    """Progress over ``items``, or by hand with ``update`` in a ``with`` block.

    total: of the count, where it is known (else the length of ``items`` if it has one).
    unit: one of what is counted, e.g. ``run``; ``B`` is scaled (1.5M) where a bar is drawn.
    quiet: nothing is shown at all. brief: and nothing is left of it once it is done.
    """
    if total is None and isinstance(items, Sized) and len(items):
        total = len(items)
    if quiet:
        return Silence(items, total=total, initial=initial)
    if not sys.stderr.isatty():
        return Lines(items, total=total, initial=initial, desc=desc, unit=unit, brief=brief)
    from tqdm import tqdm

    bar = tqdm(
        items or None,
        total=total,
        initial=initial,
        desc=desc,
        unit=unit,
        unit_scale=unit == "B",
        dynamic_ncols=True,
        leave=not brief,
    )
    return cast("Progress[Item]", bar)
