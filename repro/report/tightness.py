"""What Rényi accounting gives away, as ``repro bench tightness`` found it; only shown here.

The stated ε is an upper bound; the tight ε is known between two bounds, so the gap is too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repro.formatting import small
from repro.report.sources import Sources
from repro.report.table import Column, Table, empty_table

OURS, UPPER, LOWER = "RDP (ours)", "PLD, upper bound", "PLD, lower bound"
TABLE, RUNS = "Table 2", "runs"  # where schedules come from
NAME = "table2-tightness"
TITLE = "Table 2e. What Rényi accounting gives away"
COMMAND = "repro bench tightness --out OUT"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Comparison:
    """One schedule of DP-SGD: the stated ε and the bounds of the tight one (None: unknown)."""

    schedule: dict[str, Any]  # the fields of bench.tightness.Schedule
    stated: float
    upper: float | None
    lower: float | None

    @property
    def gap(self) -> tuple[float, float] | None:
        """By how many per cent the stated ε exceeds the tight one: at least, at most."""
        if self.upper is None or self.lower is None:
            return None
        return 100 * (self.stated / self.upper - 1), 100 * (self.stated / self.lower - 1)


def comparisons(sources: Sources) -> list[Comparison]:
    """One for each schedule of the benchmark, in its order; empty where it was not run."""
    bench = sources.side("bench/tightness") or {"rows": []}
    found: dict[str, dict[str, Any]] = {}
    for row in bench["rows"]:  # up to three of each schedule, which its fields tell apart
        entry = found.setdefault(str(row["detail"]), {"schedule": row["detail"]})
        entry[row["name"]] = row["median"]
    return [
        Comparison(entry["schedule"], entry[OURS], entry.get(UPPER), entry.get(LOWER))
        for entry in found.values()
    ]


def given_away(sources: Sources) -> str:
    """One line for the report: the range of the gap, or how to measure it."""
    parts = []
    for origin, words in ((TABLE, "in Table 2's schedules"), (RUNS, "in those of the runs")):
        found = [c for c in comparisons(sources) if c.schedule["origin"] == origin]
        gaps = [c.gap for c in found if c.gap is not None]
        if gaps:
            least, most = min(gap[0] for gap in gaps), max(gap[1] for gap in gaps)
            parts.append(f"{least:.0f} to {most:.0f} % {words}")
    if not parts:
        return f"{NOT_MEASURED} here ({COMMAND}, with dp-accounting installed)"
    return f"its ε exceeds the tight one by {', '.join(parts)} (Table 2e)"


def tightness_table(sources: Sources) -> Table:
    found = comparisons(sources)
    if not found:
        return empty_table(NAME, TITLE, caption="Nothing was measured here.", how=COMMAND)
    where = (sources.side("bench/tightness") or {}).get("environment", {})
    return Table(
        name=NAME,
        title=TITLE,
        columns=[
            Column("label", "DP-SGD of one hospital"),
            Column("sample_rate", "sample rate", number=True),
            Column("steps", "steps", number=True),
            Column("noise_multiplier", "noise multiplier", number=True),
            Column("delta", "δ", number=True),
            Column("stated", "ε stated (RDP)", number=True),
            Column("tight", "tight ε, between", number=True),
            Column("gap", "given away (%)", number=True),
        ],
        rows=[_row(comparison) for comparison in found],
        caption=f"dp-accounting {where.get('dp-accounting') or 'not installed'}; computed, "
        "independent of machine, data and seeds.",
        notes=[
            "Tight: the privacy loss distribution, from below and from above; the true ε lies "
            "between. Given away: by how much RDP alone exceeds it. "
            "The bounds are dp-accounting's, an independent oracle; guarantees are stated by the "
            "smaller of our own accountants.",
            "A run's row is of the hospital whose stated ε is its largest. All for adding or "
            "removing one record.",
        ],
        data=[
            {**c.schedule, "stated": c.stated, "upper": c.upper, "lower": c.lower} for c in found
        ],
    )


def _row(comparison: Comparison) -> dict[str, str]:
    schedule, gap = comparison.schedule, comparison.gap
    between = f"{comparison.lower:.3f} – {comparison.upper:.3f}" if gap else NOT_MEASURED
    return {
        "label": schedule["label"],
        "sample_rate": f"{schedule['sample_rate']:.4f}",
        "steps": f"{schedule['steps']:,}",
        "noise_multiplier": f"{schedule['noise_multiplier']:.4g}",
        "delta": small(schedule["delta"]),
        "stated": f"{comparison.stated:.3f}",
        "tight": between,
        "gap": f"{gap[0]:.1f} – {gap[1]:.1f}" if gap else NOT_MEASURED,
    }
