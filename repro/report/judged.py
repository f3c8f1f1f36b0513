"""Whether what was measured came out as expected, and why not (``paper_results/as_expected.toml``).

People judge this by reading, so a judgement is of the records it was made from: it is shown for no
other, and an ablation's names the means that were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from repro.errors import InputError
from repro.report.claims import BESIDE, PAPER_RESULTS, read_toml
from repro.report.sources import Sources

FILE = "as_expected.toml"
ANSWERS = ("yes", "no", "in part", "not resolved")
NOT_JUDGED = "not judged for these runs"


@dataclass(frozen=True)
class Judgement:
    answer: str  # one of ANSWERS
    why: str = ""  # needed unless it is "yes"
    means: tuple[float, ...] = ()  # per cent, of an ablation's variants as they were read

    def __str__(self) -> str:
        return f"{self.answer}: {self.why}" if self.why else self.answer


def item_judged(name: str, sources: Sources) -> str:
    """Of a table or figure as drawn from the repository's own records."""
    ours = sources.out.resolve() == PAPER_RESULTS
    found = judgements("item").get(name) if ours else None
    return str(found) if found else NOT_JUDGED


def ablation_judged(name: str, variants: Sequence[dict[str, Any]]) -> str:
    """Of an ablation whose variants have the very means that were judged."""
    found = judgements("ablation").get(name)
    if found is None or found.means != means_of(variants):
        return NOT_JUDGED
    return str(found)


def means_of(variants: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    return tuple(round(100 * variant["mean"], 2) for variant in variants)


def judgements(kind: str) -> dict[str, Judgement]:
    """By name; kind: "item" or "ablation"."""
    return _load(BESIDE / FILE)[kind]


@cache
def _load(path: Path) -> dict[str, dict[str, Judgement]]:
    content = read_toml(path)
    return {
        kind: {name: _judgement(name, entry) for name, entry in content.get(kind, {}).items()}
        for kind in ("item", "ablation")
    }


def _judgement(name: str, entry: dict[str, Any]) -> Judgement:
    made = Judgement(**entry | {"means": tuple(map(float, entry.get("means", ())))})
    if made.answer not in ANSWERS:
        raise InputError(f"{FILE}: {name}", made.answer, "one of " + ", ".join(ANSWERS))
    if made.answer != "yes" and not made.why:
        raise InputError(f"{FILE}: {name}", made.answer, "a `why` beside it")
    return made
