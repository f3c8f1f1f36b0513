"""Numbers as arguments: one validator for the whole package, which refuses in one line.

Every check takes the field's name and the value, and returns the Python number to go on with, or
raises ``InputError`` that names the field. Scalars of NumPy and torch are as good as Python's
wherever a number is meant; truth values, text and arrays (of one element too) are none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from repro.errors import InputError

# A whole number is as good as a float wherever a real quantity is meant.
Number = float | int


def plain(value: Any) -> Any:
    """The Python number in a scalar of NumPy or torch (no dimensions); any other value as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        try:
            return value.item()
        except RuntimeError:  # a tensor without contents, on torch's "meta" device
            return value
    return value


def check_real(field: str, value: Any, holds: Callable[[float], bool], expected: str) -> float:
    """``value`` as a float if ``holds`` says so; NaN fails every comparison, hence every check."""
    given = plain(value)
    try:
        if isinstance(given, (str, bytes, bytearray, bool)) or getattr(given, "shape", ()) != ():
            raise TypeError
        number = float(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(field, value, expected) from None
    if not holds(number):
        raise InputError(field, value, expected)
    return number


def check_positive(field: str, value: Any) -> float:
    """``value`` as a float, finite and above 0."""
    return check_real(field, value, lambda x: 0 < x < math.inf, "a finite number above 0")


def check_not_negative(field: str, value: Any) -> float:
    """``value`` as a float, finite and at least 0."""
    return check_real(field, value, lambda x: 0 <= x < math.inf, "a finite number, 0 or above")


def check_fraction(field: str, value: Any, *, zero: bool) -> float:
    """``value`` as a float below 1, above 0 or (``zero``) at least 0."""
    expected = f"a number in {'[' if zero else '('}0, 1)"
    return check_real(field, value, lambda x: (x >= 0 if zero else x > 0) and x < 1, expected)


def check_count(field: str, value: Any, least: int = 1) -> int:
    """A whole number ≥ ``least``, exact however large; whole floats (``1e9``) are taken."""
    expected = f"a whole number, {least} or above"
    given = plain(value)
    if not isinstance(given, int) or isinstance(given, bool):
        real = check_real(field, value, math.isfinite, expected)
        if real != math.floor(real):
            raise InputError(field, value, expected)
        given = int(real)
    if given < least:
        raise InputError(field, value, expected)
    return given


def check_one_of(field: str, value: Any, numbers: tuple[int, ...], expected: str) -> int:
    """``value`` as the one of these whole numbers that it is."""
    return int(check_real(field, value, lambda number: number in numbers, expected))


def check_word64(field: str, value: Any) -> int:
    """``value`` as an integer from 0 to 2⁶⁴ − 1 (a seed, a noise key, a step): no float, of which
    those above 2⁵³ would stand for several keys."""
    given = plain(value)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**64:
        raise InputError(field, value, "an integer from 0 to 2^64 - 1")
    return given


def check_choice(field: str, value: Any, choices: Collection[str]) -> str:
    """``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(field, value, " or ".join(choices))
    return value


def check_kind(field: str, value: Any, kind: type | tuple[type, ...], expected: str) -> None:
    """Raise InputError unless ``value`` is an object of this kind."""
    if not isinstance(value, kind):
        raise InputError(field, type(value).__name__, expected)


def check_callable(field: str, value: Any, expected: str) -> None:
    if not callable(value):
        raise InputError(field, type(value).__name__, expected)


# Of a dataclass, when it is made: each named field is checked and kept as a Python number (an int
# where a real one was given as an int), so that what is written of it is the same for every type.


def check_choices(settings: object, known: Mapping[str, tuple[str, ...]]) -> None:
    for name, choices in known.items():
        check_choice(name, getattr(settings, name), choices)


def check_above_zero(settings: object, *names: str) -> None:
    for name in names:
        _keep(settings, name, check_positive(name, getattr(settings, name)))


def check_zero_or_above(settings: object, *names: str) -> None:
    for name in names:
        _keep(settings, name, check_not_negative(name, getattr(settings, name)))


def check_counts(settings: object, **least: int) -> None:
    for name, lowest in least.items():
        _keep(settings, name, check_count(name, getattr(settings, name), lowest))


def check_fractions(settings: object, *names: str, zero: bool) -> None:
    for name in names:
        _keep(settings, name, check_fraction(name, getattr(settings, name), zero=zero))


def _keep(settings: object, name: str, number: Number) -> None:
    given = plain(getattr(settings, name))
    # A frozen dataclass is set once, in its ``__post_init__``.
    object.__setattr__(settings, name, given if isinstance(given, int) else number)
