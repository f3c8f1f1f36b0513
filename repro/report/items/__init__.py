"""Every table and figure: one module each, whose docstring says how to get it and what to expect.

A table's module has ``build(sources) -> list[Table]``, a figure's ``build(sources) -> Figure``;
where several are drawn alike, one module has ``build_NAME`` of each, with its docstring.
All read run records and side files only; drawing is left to ``draw`` and ``draw_all``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.about import docstring_parts
from repro.errors import InputError

if TYPE_CHECKING:
    from repro.report.sources import Sources


@dataclass(frozen=True)
class Item:
    """One table or figure. ``name`` is that of its files."""

    kind: str  # "table" | "figure"
    number: int
    name: str
    title: str
    module: str  # below repro.report.items
    settles: tuple[str, ...] = ()  # the kinds of claims it gives a verdict on

    @property
    def folder(self) -> str:
        return self.kind + "s"

    @property
    def label(self) -> str:
        return f"{self.kind.capitalize()} {self.number}"

    def about(self) -> dict[str, str]:
        """``Command``, ``Cost and hardware`` and ``Expected``, as the docstring says them."""
        own = getattr(self._module, f"build_{self.name}", self._module)
        return docstring_parts(own.__doc__)

    def build(self, sources: Sources) -> Any:
        """Its ``list[Table]`` or ``Figure``, not yet written."""
        own = getattr(self._module, f"build_{self.name}", None)
        return (own or self._module.build)(sources)

    @property
    def _module(self) -> Any:
        return importlib.import_module(f"repro.report.items.{self.module}")


def _numbered(kind: str, *items: tuple[Any, ...]) -> tuple[Item, ...]:
    return tuple(Item(kind, number, *item) for number, item in enumerate(items, start=1))


TABLES = _numbered(
    "table",
    (
        "table1",
        "Test accuracy: the paper's claims and ours",
        "table1_accuracy",
        ("accuracy", "quoted", "difference"),
    ),
    ("table2", "Privacy: what each reading guarantees", "table2_privacy", ("epsilon",)),
    ("table3", "Secure aggregation: bytes, time, error", "table3_secagg"),
    ("table4", "DP-SGD engines: time and memory", "table4_engines"),
    ("table5", "Models: size, work, receptive field", "table5_models"),
    ("table6", "Audit: lower bounds on ε", "table6_audit"),
    ("table7", "The paper's network, trained for a night", "table7_overnight"),
    ("table8", "Flower's releases, executed beside our code", "table8_forensics"),
    ("table9", "Measures for a clinician", "table9_clinical"),
)
FIGURES = _numbered(
    "figure",
    ("hospitals", "Images per hospital", "figure_partition", ("sizes",)),
    ("labels", "Label mix of the hospitals", "figure_partition"),
    ("accuracy", "Test accuracy against round", "figure_curves"),
    ("loss", "Test loss against round", "figure_curves"),
    ("frontier", "Test accuracy against ε", "figure_frontier"),
    ("confusion", "Confusion matrices", "figure_classes"),
    ("recall", "Per-class recall with and without privacy", "figure_classes"),
    ("epsilon", "ε against round and noise", "figure_epsilon"),
    ("dpresnet", "DPResNet", "figure_dpresnet", ("parameters",)),
    ("answer", "The answer in one chart", "figure_answer"),
    ("paper", "The paper's own setting, round by round", "figure_paper"),
)
ITEMS = TABLES + FIGURES


def find(kind: str, wanted: str) -> Item:
    """The table or figure of that number or name."""
    items = TABLES if kind == "table" else FIGURES
    for item in items:
        if wanted in (str(item.number), item.name):
            return item
    names = ", ".join(f"{item.number} ({item.name})" for item in items)
    raise InputError(kind, wanted, f"one of {names}")


def draw(item: Item, sources: Sources) -> list[Path]:
    """Draw one item, whatever was there before."""
    from repro.report import style
    from repro.report.cache import mark_current
    from repro.report.table import write_table

    folder = sources.out / item.folder
    if item.kind == "table":
        paths = [path for table in item.build(sources) for path in write_table(table, folder)]
    else:
        with style.applied():
            paths = style.write_figure(item.build(sources), folder, item.name)
    mark_current(sources.out, item.name, sources.digest, paths)
    return paths


def draw_all(sources: Sources) -> Iterator[tuple[Item, list[Path], bool]]:
    """Every item in turn with its paths, and whether it had to be drawn."""
    from repro.report.cache import is_current, noted_paths

    for item in ITEMS:
        if is_current(sources.out, item.name, sources.digest):
            yield item, noted_paths(sources.out, item.name), False
        else:
            yield item, draw(item, sources), True
