"""README's table: each arm's longest training, its accuracy and what privacy cost."""

import pytest

from repro.report.front import front_table
from repro.report.items import figure_answer
from repro.report.sources import Sources
from repro.runs import RunStore
from repro.runs.arms import CLIPPED, FEDAVG, FEDAVG_SECURE, RECORD_SHARED, get_arm
from tests.report import fake

HONEST = "turned-newton-eps6-all"


def rows_of(sources):
    table = front_table(sources)
    return {row["what"]: row for row in table.rows}, table


def test_a_row_takes_the_longest_training_and_says_which(tmp_path):
    twin = get_arm(HONEST).presentation.twin
    fake.store(tmp_path, [FEDAVG, CLIPPED, HONEST, twin])
    paper = RunStore(tmp_path / "paper")
    paper.save(fake.record(FEDAVG, 10, 0, profile="paper"))
    rows, table = rows_of(Sources.of(tmp_path, profile="quick"))
    assert len(table.rows) == 7
    plain = rows["the paper's network, no privacy (paper's setting)"]
    own = fake.record(FEDAVG, 10, 0, profile="paper").final_accuracy
    assert (plain["k10"], plain["k20"]) == (f"{100 * own:.2f}", "not run")
    assert plain["cost"] == "–"
    clipped = rows["“DP+” as most likely run: clipping, no noise (width 4 instead of 64)"]
    assert clipped["epsilon"] == "ε = ∞"
    assert clipped["cost"] == "–"  # what it costs is not privacy's
    honest = rows["fixed random filters and a linear layer"]
    assert honest["epsilon"] == "ε = 6, record"
    seeds = range(3)
    for place, hospitals in enumerate((10, 20)):
        runs = [[fake.record(arm, hospitals, s).final_accuracy for s in seeds]
                for arm in (HONEST, twin)]  # fmt: skip
        points = 100 * (sum(runs[0]) - sum(runs[1])) / len(seeds)
        shown = honest["cost"].split(" / ")[place].replace("−", "-")
        assert abs(float(shown) - points) <= 0.051
    private = rows["the paper's network, with noise that is added (width 4 instead of 64)"]
    assert (private["k10"], private["cost"]) == ("not run", "not run")


def test_the_caption_says_how_sure_and_which_data(tmp_path):
    fake.store(tmp_path, [FEDAVG_SECURE, RECORD_SHARED])
    _, table = rows_of(Sources.of(tmp_path, profile="quick"))
    assert "binomial error " in table.caption
    assert table.caption.endswith(Sources.of(tmp_path, profile="quick").evidence.dataset_caption)


def test_without_any_run_the_claim_stands_alone(tmp_path):
    rows, table = rows_of(Sources.of(tmp_path))
    claim = rows["the paper's claim, DP+ / SecAgg+"]
    assert (claim["k10"], claim["k20"]) == ("97.78", "96.89")
    assert claim["cost"] == "−1.0 / −0.9"
    others = [row for row in table.rows if row is not claim]
    assert {row[f"k{k}"] for row in others for k in (10, 20)} == {"not run"}


def test_the_chart_has_the_table_s_rows_and_their_runs(tmp_path):
    """The longest training of each, as in the table: a point a run, in its row."""
    fake.store(tmp_path, [FEDAVG, HONEST])
    paper = RunStore(tmp_path / "paper")
    paper.save(fake.record(FEDAVG, 10, 0, profile="paper"))
    sources = Sources.of(tmp_path, profile="quick")
    table = front_table(sources)
    ten = figure_answer.build(sources).axes[0]
    labels = [label.get_text() for label in ten.get_yticklabels()]
    assert labels == [f"{row['what']}\n{row['epsilon']}" for row in table.rows]
    points = {tuple(line.get_ydata()): line.get_xdata() for line in ten.lines
              if line.get_marker() == "o"}  # fmt: skip
    own = [100 * fake.record(HONEST, 10, seed).final_accuracy for seed in range(3)]
    place = [row["what"] for row in table.rows].index("fixed random filters and a linear layer")
    assert {rows[0] for rows in points} == {1, place}
    assert list(points[(place,) * 3]) == pytest.approx(own)
    longest = fake.record(FEDAVG, 10, 0, profile="paper").final_accuracy
    assert list(points[(1,)]) == pytest.approx([100 * longest])
