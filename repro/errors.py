"""The one error a user's mistake raises, and how it reads.

Everything a user can get wrong (an option, a file, a setting, a message's shape) raises
``InputError``; the command line turns it into one line on stderr and exit status 2.
Any other exception is a defect of this project and keeps its traceback.
"""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: names the field, the value and what would be right, in one line.

    >>> str(InputError("clip_norm", -1.0, "a finite number above 0"))
    'clip_norm: got -1.0; expected a finite number above 0'
    """

    def __init__(self, field: str, value: object, expected: str) -> None:
        self.field, self.value, self.expected = field, value, expected
        super().__init__(" ".join(f"{field}: got {_shown(value)}; expected {expected}".split()))

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by their message; worker processes need the three parts.
        return (InputError, (self.field, self.value, self.expected))


class MissingDependency(InputError):
    """An optional library is not installed; says which, and how to get it."""

    def __init__(self, library: str, needed_for: str, install: str) -> None:
        super().__init__(library, "nothing importable", f"it installed for {needed_for}: {install}")


def _shown(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
