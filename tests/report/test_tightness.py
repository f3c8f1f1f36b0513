"""What Rényi accounting gives away, as Table 2 and the report print it; what ledgers warn of."""

import dataclasses
import json

import pytest

from repro.bench.tightness import LOWER, OURS, UPPER, of_the_runs
from repro.report.methods import _alike, measured_table
from repro.report.sources import Sources
from repro.report.tightness import comparisons, given_away, tightness_table
from tests.report import fake

SCHEDULE = {
    "label": "956 images, batch 32",
    "origin": "Table 2",
    "noise_multiplier": 1.7593,
    "sample_rate": 32 / 956,
    "steps": 4481,
    "delta": 1.9e-4,
}


def keep(out, **epsilons):
    """A made-up benchmark: ε by accountant."""
    names = {"stated": OURS, "upper": UPPER, "lower": LOWER}
    rows = [
        {"name": names[key], "metric": "m", "median": value, "detail": SCHEDULE}
        for key, value in epsilons.items()
    ]
    (out / "bench").mkdir(exist_ok=True)
    content = {"rows": rows, "environment": {"dp-accounting": "9.9"}}
    (out / "bench" / "tightness.json").write_text(json.dumps(content))
    return Sources.of(out)


def methods_line(sources):
    rows = {row["what"]: row["value"] for row in measured_table(sources).rows}
    return rows["what Rényi accounting alone would give away"]


def test_the_gap_is_between_what_both_bounds_give(tmp_path):
    sources = keep(tmp_path, stated=6.0, upper=5.0, lower=4.8)
    (found,) = comparisons(sources)
    assert found.gap == pytest.approx((20.0, 25.0))
    row = tightness_table(sources).rows[0]
    assert row["tight"] == "4.800 – 5.000"
    assert row["gap"] == "20.0 – 25.0"
    assert "by 20 to 25 % in Table 2's schedules (Table 2e)" in methods_line(sources)
    assert "9.9" in tightness_table(sources).caption


def test_without_the_benchmark_its_command_stands_there(tmp_path):
    sources = Sources.of(tmp_path)
    assert tightness_table(sources).rows == [
        {"what": "repro bench tightness --out OUT", "state": "not run"}
    ]
    assert "not measured here (repro bench tightness" in methods_line(sources)


def test_without_dp_accounting_the_stated_epsilon_stands_alone(tmp_path):
    sources = keep(tmp_path, stated=6.0)
    row = tightness_table(sources).rows[0]
    assert row["stated"] == "6.000"
    assert row["tight"] == row["gap"] == "not measured"
    assert given_away(sources).startswith("not measured here")


def test_schedules_of_runs_come_from_their_ledgers(tmp_path):
    """Once a schedule: statements of other units or views of one run add none of their own."""
    store = fake.store(tmp_path, ["fedavg"])
    run = fake.record("dpsgd-eps6", 10, 0)
    spent = {"noise_multiplier": 0.9, "sample_rate": 0.05, "steps": 70}
    silent = dict.fromkeys(spent)
    privacy = [e | (spent if e["unit"] == "record" else silent) for e in run.privacy]
    store.save(dataclasses.replace(run, privacy=privacy))
    found = {schedule.key: schedule for schedule in of_the_runs(str(tmp_path))}
    (schedule,) = found.values()
    assert schedule.key == (0.9, 0.05, 70, 1.9e-4)
    assert schedule.label == "run dpsgd-eps6, 10 hospitals, quick"


def test_warnings_that_differ_by_counts_are_one():
    every = ["2 of them, in 3 places", "noise {key} known", "5 of them, in 3 places", "7"]
    assert _alike(every) == ["2, 5 of them, in 3 places", "noise {key} known", "7"]
    assert _alike([]) == []
