"""How much Rényi accounting gives away: bounds on both sides, and what is said without them."""

import json
import sys

import pytest

from repro.accounting import GaussianEvent, gaussian_epsilon
from repro.bench import tightness
from repro.bench.pld import pld_epsilon
from repro.bench.tightness import LOWER, OURS, TABLE, UPPER, Schedule
from repro.cli import main
from repro.errors import InputError

SMALL = Schedule("a small hospital", TABLE, 1.2, 0.1, 40, 1e-4)


@pytest.fixture
def without_dp_accounting(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)


@pytest.mark.parametrize(("sigma", "count"), [(5.0, 4), (1.0, 1), (12.0, 100)])
def test_the_exact_epsilon_lies_between_the_bounds(sigma, count):
    """Against the closed form of unsampled Gaussians (Balle & Wang 2018), which neither knows."""
    pytest.importorskip("dp_accounting")
    counts, exact = {GaussianEvent(sigma): count}, gaussian_epsilon(sigma, 1.0, count, 1e-5)
    upper = pld_epsilon(counts, 1e-5)
    for interval in (1e-3, 1e-4):
        lower = pld_epsilon(counts, 1e-5, lower=True, interval=interval)
        assert lower <= exact <= upper * (1 + 1e-9)
        assert lower >= exact - count * interval
    with pytest.raises(InputError, match="interval"):
        pld_epsilon(counts, 1e-5, interval=0.0)


def test_ours_is_above_both_bounds_they_are_close_and_rows_are_relative_to_the_tight_one():
    pytest.importorskip("dp_accounting")
    rows = tightness.compare(SMALL)
    ours, upper, lower = (row.median for row in rows)
    assert lower <= upper < ours
    assert lower > 0.99 * upper
    assert [row.name for row in rows] == [OURS, UPPER, LOWER]
    assert rows[0].relative == ours / upper > 1
    assert all(row.detail["steps"] == SMALL.steps for row in rows)


def test_without_the_library_ours_is_stated_and_the_note_says_why(without_dp_accounting):
    (row,) = tightness.compare(SMALL)
    assert row.name == OURS
    assert row.relative is None
    assert "dp-accounting is not installed" in row.note


def test_the_papers_schedules_hold_their_epsilon():
    """Each of Table 2's twenty schedules states the ε it was calibrated to, never more."""
    found = tightness.of_the_paper()
    assert len({schedule.key for schedule in found}) == len(found) == 20
    assert {s.steps for s in found} == {4481, 1120, 2850, 6112, 2240}


def test_the_command_keeps_its_rows_in_a_file_of_their_own(
    without_dp_accounting, monkeypatch, tmp_path, capsys
):
    """Timings measured on a quiet machine are not overwritten by it."""
    monkeypatch.setattr(tightness, "of_the_paper", lambda: [SMALL])
    assert main(["bench", "tightness", "--out", str(tmp_path), "--json"]) == 0
    kept = json.loads((tmp_path / "bench" / "tightness.json").read_text())
    assert kept == json.loads(capsys.readouterr().out)
    assert [path.name for path in (tmp_path / "bench").iterdir()] == ["tightness.json"]
