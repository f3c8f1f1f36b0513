"""The one place where markup is made: the Jinja2 templates beside this module.

What goes into a ``.html`` template is escaped there by itself; Markdown is text as it is. Every
page takes ``page.html``, which holds ``report.css``, and loads nothing.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape


def render(template: str, **values: Any) -> str:
    """``templates/TEMPLATE`` with these values; one that it misses is an error."""
    return _ENVIRONMENT.get_template(template).render(values)


def _code(text: str) -> Markup:
    """Escaped, and what stands in backquotes as code."""
    return Markup(re.sub(r"`+([^`]+)`+", r"<code>\1</code>", str(escape(text))))


def _prose(text: str) -> Markup:
    """``_code``, kept from breaking a line inside ``ε = 6``, ``1 ± 2`` or ``3 / 4``."""
    return _code(re.sub(" ([=±/]) ", "\u00a0\\1\u00a0", text))


def _lines(text: str) -> Markup:
    return Markup("<br>").join(map(_code, text.split("\n")))


def _data_url(drawing: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.read_bytes()).decode()}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(["html"], default=False),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters |= {"code": _code, "prose": _prose, "lines": _lines, "data_url": _data_url}
