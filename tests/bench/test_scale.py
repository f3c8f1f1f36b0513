"""``repro bench scale``: its rows, with the jobs run in this process."""

import json

import pytest
import torch

from repro.bench import scale, scale_job
from repro.cli import main
from repro.federated.parallel.ranks import Ranks

SMALL = "bench scale --hospitals 2 4 --secure 4 --neighbours 2 --width 2 --repeats 1"


@pytest.fixture
def in_process(monkeypatch):
    """Every job alone, whatever its ranks: the launcher is tested with the real runs."""
    launched = []

    def launch(job, ranks):
        launched.append((job.hospitals, job.secure, ranks))
        return scale_job.run(job, Ranks())

    monkeypatch.setattr(scale, "launch", launch)
    threads = torch.get_num_threads()
    yield launched
    torch.set_num_threads(threads)


def test_rows_for_every_size_and_number_of_ranks(in_process, capsys):
    few = "--speedup-images 2 --speedup-width 2 --json"
    assert main([*SMALL.split(), *few.split()]) == 0
    answer = json.loads(capsys.readouterr().out)
    speeds = [row for row in answer["rows"] if row["metric"] == "rounds"]
    assert [row["name"] for row in speeds] == [
        f"{kind}, {ranks}" for kind in ("plain K=2", "plain K=4", "secure k=2 K=4",
        "plain K=10", "secure k=4 K=10") for ranks in ("1 rank", "2 ranks")
    ]  # fmt: skip
    for row in speeds:
        assert (row["relative"] is None) == row["name"].endswith(" 1 rank")
    assert all(row["median"] > 0 for row in answer["rows"])
    grown = [row["note"] for row in answer["rows"] if row["metric"] == "a hospital's round"]
    assert "from K=2" in grown[1]
    assert (4, True, 2) in in_process
    assert answer["environment"]["threads"] == 1


@pytest.mark.parametrize(
    ("words", "field"),
    [("--hospitals 0", "hospitals"), ("--secure 1", "secure"), ("--neighbours 3", "neighbours"),
     ("--repeats 0", "repeats"), ("--ranks 0", "ranks"),
     ("--large-repeats 0", "large_repeats")],
)  # fmt: skip
def test_mistakes_cost_one_line(words, field, in_process, capsys):
    assert main([*SMALL.split(), *words.split()]) == 2
    assert capsys.readouterr().err.startswith(f"repro bench: {field}: got")
    assert in_process == []
