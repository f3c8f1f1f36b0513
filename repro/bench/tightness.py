"""``repro bench tightness``: how much Rényi accounting gives away, beside a tight accountant.

Command: ``repro bench tightness --out DIR``; kept in ``DIR/bench/tightness.json``, from which
Table 2 prints it. Cost: about two minutes on a CPU core; no GPU, nothing is timed. Expected: the
stated ε lies 10–13 % above the tight one for schedules of thousands of steps, up to half above
it for runs of a few dozen, and never below it.

Each schedule of record-level DP-SGD (Table 2's, and those of the runs in ``DIR``) is accounted
for by our RDP accountant and by the privacy loss distribution of dp-accounting, from above and
from below: the true ε lies between these two, so what is given away is known, not guessed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from repro.accounting.checks import ADD_REMOVE, RECORD
from repro.bench.harness import Row
from repro.errors import MissingDependency
from repro.progress import progress
from repro.report.tightness import LOWER, OURS, RUNS, TABLE, UPPER
from repro.runs.provenance import environment

# Half a grid step a repetition is what rounding down loses; so the lower bound is 0.5 % low.
_LOWER_LOSS = 0.01


@dataclass(frozen=True)
class Schedule:
    """DP-SGD of one hospital: Poisson-sampled Gaussian steps, add/remove one record."""

    label: str
    origin: str  # "Table 2" or "runs"
    noise_multiplier: float
    sample_rate: float
    steps: int
    delta: float

    @property
    def key(self) -> tuple[float, float, int, float]:
        return self.noise_multiplier, self.sample_rate, self.steps, self.delta


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-runs", action="store_true", help="only Table 2's schedules, not those of --out's runs"
    )


def measure(arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    found = {schedule.key: schedule for schedule in of_the_paper()}
    if arguments.out and not arguments.no_runs:
        for schedule in of_the_runs(arguments.out):
            found.setdefault(schedule.key, schedule)
    rows = []
    for schedule in progress(list(found.values()), desc="tightness", unit="schedule"):
        rows += compare(schedule)
    return rows, environment(("numpy", "scipy", "dp-accounting"))


def of_the_paper() -> list[Schedule]:
    """Those of Table 2's noise multipliers: hospitals' sizes, batches and total ε."""
    from repro.accounting import calibrate_noise_multiplier
    from repro.report.items import table2_privacy as table

    schedules = []
    for images, batch in table.HOSPITALS:
        rate, steps = batch / images, table.LOCAL_EPOCHS * images // batch
        for target in table.TARGETS:
            noise, _ = calibrate_noise_multiplier(
                target, table.DELTA, rate, steps, accountant="rdp"
            )
            label = f"{images:,} images, batch {batch}"
            schedules.append(Schedule(label, TABLE, noise, rate, steps, table.DELTA))
    return schedules


def of_the_runs(root: str) -> Iterable[Schedule]:
    """What the ledgers of the store's own runs say of the hospital with the largest ε."""
    from repro.report.evidence import is_canonical
    from repro.runs.store import RunStore

    for record in RunStore(root).all():
        for entry in record.privacy if is_canonical(record) else ():
            sampled = entry.get("sample_rate") and entry.get("noise_multiplier")
            if (entry["unit"], entry["relation"]) == (RECORD, ADD_REMOVE) and sampled:
                yield Schedule(
                    f"run {record.arm}, {record.hospitals} hospitals, {record.profile}",
                    RUNS,
                    entry["noise_multiplier"],
                    entry["sample_rate"],
                    entry["steps"],
                    entry["delta"],
                )


def compare(schedule: Schedule) -> list[Row]:
    """ε of one schedule by each accountant; ours alone, with a note, without dp-accounting."""
    from repro.accounting import PoissonSampledGaussianEvent, PrivacyEvent, RDPAccountant
    from repro.bench.pld import pld_epsilon

    event = PoissonSampledGaussianEvent(schedule.noise_multiplier, schedule.sample_rate)
    ours = RDPAccountant().compose(event, schedule.steps).epsilon(schedule.delta)[0]
    counts: dict[PrivacyEvent, int] = {event: schedule.steps}
    try:
        upper = pld_epsilon(counts, schedule.delta)
        fine = _LOWER_LOSS * upper / schedule.steps
        lower = pld_epsilon(counts, schedule.delta, lower=True, interval=min(fine, 1e-4))
    except MissingDependency:
        note = "dp-accounting is not installed, so nothing to compare with"
        return [_row(schedule, OURS, ours, None, note)]
    return [
        _row(schedule, OURS, ours, ours / upper),
        _row(schedule, UPPER, upper, None),
        _row(schedule, LOWER, lower, lower / upper),
    ]


def _row(
    schedule: Schedule, name: str, epsilon: float, relative: float | None, note: str = ""
) -> Row:
    metric = f"{schedule.label}, {schedule.steps:,} steps, noise {schedule.noise_multiplier:.4g}"
    detail = asdict(schedule)
    return Row.of(name, metric, "ε", [epsilon], relative=relative, note=note, detail=detail)
