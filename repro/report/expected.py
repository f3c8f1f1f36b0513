"""What was expected of our own numbers, and whether it came (two files of ``paper_results/``).

``expected.toml`` has bands, which guard against silent change: a mean outside its band makes
``repro reproduce`` exit non-zero. ``as_expected.toml`` says whether a table, figure or ablation
came out as expected, and why not. People judge that by reading, so a judgement is of the records
it was made from: it is shown for no other, and an ablation's names the means that were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from repro.checks import check_choice
from repro.errors import InputError
from repro.files import read_toml
from repro.report.claims import BESIDE, PAPER_RESULTS
from repro.report.evidence import KINDS, Evidence
from repro.report.sources import Sources
from repro.runs.profiles import PROFILES

FILE = "as_expected.toml"
ANSWERS = ("yes", "no", "in part", "not resolved")
NOT_JUDGED = "not judged for these runs"


@dataclass(frozen=True)
class Band:
    """Where the mean final accuracy (per cent) of one arm must lie."""

    profile: str
    data: str  # kind of data
    arm: str
    hospitals: int
    low: float
    high: float


@dataclass(frozen=True)
class Violation:
    band: Band
    measured: float  # per cent

    def __str__(self) -> str:
        b = self.band
        return (
            f"{b.arm}, {b.hospitals} hospitals: {self.measured:.2f} % left its expected band "
            f"[{b.low:g}, {b.high:g}] ({b.profile} profile, {b.data} data)"
        )


def load_expected(path: Path | None = None) -> list[Band]:
    """Every band of the file; a malformed one is refused."""
    entries = read_toml(path or BESIDE / "expected.toml").get("band", [])
    return [_band(entry) for entry in entries]


def check_expected(evidence: Evidence, bands: list[Band] | None = None) -> list[Violation]:
    """The bands that a measured mean has left. Arms that were not run violate nothing."""
    violations: list[Violation] = []
    if evidence.foreign:
        return violations  # the bands are of BloodMNIST and its stand-in
    for band in load_expected() if bands is None else bands:
        if (band.profile, band.data) != (evidence.profile, evidence.kind):
            continue
        final = evidence.final(band.arm, band.hospitals)
        if final is not None and not band.low <= 100 * final.mean <= band.high:
            violations.append(Violation(band, 100 * final.mean))
    return violations


def _band(entry: dict[str, Any]) -> Band:
    wanted = set(Band.__dataclass_fields__)
    if set(entry) != wanted:
        raise InputError("band", entry, f"the keys {sorted(wanted)}")
    band = Band(**{**entry, "low": float(entry["low"]), "high": float(entry["high"])})
    check_choice("profile", band.profile, PROFILES)
    check_choice("data", band.data, KINDS)
    if not 0 <= band.low <= band.high <= 100:
        raise InputError("band", (band.low, band.high), "0 ≤ low ≤ high ≤ 100")
    return band


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
    check_choice(f"{FILE}: {name}", made.answer, ANSWERS)
    if made.answer != "yes" and not made.why:
        raise InputError(f"{FILE}: {name}", made.answer, "a `why` beside it")
    return made
