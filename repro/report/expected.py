"""Bands our own numbers are expected in (``paper_results/expected.toml``).

They guard against silent change: a mean outside its band makes ``repro reproduce`` exit non-zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.errors import InputError
from repro.report.claims import BESIDE, read_toml
from repro.report.evidence import KINDS, Evidence
from repro.runs.profiles import PROFILES


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
    if band.profile not in PROFILES:
        raise InputError("profile", band.profile, "one of " + ", ".join(PROFILES))
    if band.data not in KINDS:
        raise InputError("data", band.data, "one of " + ", ".join(KINDS))
    if not 0 <= band.low <= band.high <= 100:
        raise InputError("band", (band.low, band.high), "0 ≤ low ≤ high ≤ 100")
    return band
