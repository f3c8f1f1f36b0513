"""Simple tables of docstrings (lines of ``===``), which Markdown does not know, as Markdown tables.

mkdocs.yml names ``SimpleTables``; only the documentation's build reads this file.
"""

from __future__ import annotations

import re
from typing import Any

try:
    from griffe import Extension
except ImportError:  # the tests need no documentation tools
    Extension = object

_RULE = re.compile(r"=+( +=+)+")


def as_markdown(text: str) -> str:
    """``text`` with every simple table in it as a Markdown table.

    A table is a rule, the heading, a rule, the rows, a rule; the rules' gaps are the columns'. A
    line whose first column is empty goes on with the row before it.
    """
    lines, done = text.split("\n"), []
    while lines:
        line = lines.pop(0)
        if not _RULE.fullmatch(line.strip()):
            done.append(line)
            continue
        spans = [match.span() for match in re.finditer("=+", line)]
        spans[-1] = (spans[-1][0], max(map(len, [line, *lines])))
        rows: list[list[str]] = []
        rules = 1
        while rules < 3:
            line = lines.pop(0)
            if _RULE.fullmatch(line.strip()):
                rules += 1
                continue
            cells = [line[start:end].strip().replace("|", "\\|") for start, end in spans]
            if cells[0]:
                rows.append(cells)
            else:
                rows[-1] = [f"{a} {b}".strip() for a, b in zip(rows[-1], cells, strict=True)]
        rows.insert(1, ["---"] * len(spans))
        done += ["", *("| " + " | ".join(row) + " |" for row in rows), ""]
    return "\n".join(done)


class SimpleTables(Extension):  # type: ignore[misc, valid-type]
    """griffe's hook: every object's docstring, before it is rendered."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
