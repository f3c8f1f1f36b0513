"""Progress on stderr: a bar on a terminal, now and then a plain line where stderr is a file.

A log keeps every character it is sent: a bar that redraws itself would leave thousands of
half lines and carriage returns there. Off a terminal, one whole line at most every
``SECONDS_BETWEEN_LINES`` says how far things are, and one more what came of them.
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """seconds: least time between two lines, ``SECONDS_BETWEEN_LINES`` unless said."""
        self.n: Number = initial
        self.total = total
        self._items, self._desc, self._unit, self._postfix = items, desc, unit, ""
        self._file = file or sys.stderr
        self._seconds = SECONDS_BETWEEN_LINES if seconds is None else seconds
        self._clock, self._begun = clock, clock()
        self._spoke, self._shown = self._begun, ""
        self._closed = False

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def update(self, n: Number = 1) -> None:
        self.n += n
        self._speak_if_due()

    def set_postfix_str(self, s: str = "") -> None:
        self._postfix = s
        self._speak_if_due()

    def close(self) -> None:
        """The last line, unless it would say what the one before said."""
        if not self._closed:
            self._closed = True
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
            minutes, seconds = divmod(int(self._spoke - self._begun), 60)
            print(f"{self._desc}: {said} ({minutes}:{seconds:02d})", file=self._file, flush=True)


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
) -> Progress[Item]:
    """Progress over ``items``, or by hand with ``update`` in a ``with`` block.

    total: of the count, where it is known (else the length of ``items`` if it has one).
    unit: one of what is counted, e.g. ``run``; ``B`` is scaled (1.5M) where a bar is drawn.
    quiet: nothing is shown at all.
    """
    if total is None and isinstance(items, Sized) and len(items):
        total = len(items)
    if quiet:
        return Silence(items, total=total, initial=initial)
    if not sys.stderr.isatty():
        return Lines(items, total=total, initial=initial, desc=desc, unit=unit)
    from tqdm import tqdm

    bar = tqdm(
        items or None,
        total=total,
        initial=initial,
        desc=desc,
        unit=unit,
        unit_scale=unit == "B",
        dynamic_ncols=True,
    )
    return cast("Progress[Item]", bar)
