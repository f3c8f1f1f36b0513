"""The harness: fair turns, right percentiles, peak memory that sees an allocation."""

import functools
import json

import numpy as np

from repro.bench import Row, format_rows, interleave, peak_memory
from repro.cli import main
from repro.runs.provenance import environment


def test_contestants_take_turns():
    order = []
    seconds = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, warmup=1
    )
    assert "".join(order) == "abababab"
    assert [len(times) for times in seconds.values()] == [3, 3]


def test_percentiles_are_nearest_rank():
    row = Row.of("x", "time", "s", [5.0, 1.0, 2.0, 4.0, 3.0, 6.0])
    assert (row.median, row.p20, row.p80) == (3.5, 2.0, 5.0)
    assert "3.5" in format_rows([row])


def allocate(mebibytes: int) -> None:
    np.ones(mebibytes * 2**17).sum()


def test_peak_memory_sees_what_was_allocated():
    memory = peak_memory(functools.partial(allocate, 200))
    assert 190 < memory["peak_mib"] - memory["start_mib"] < 260


def test_environment_names_the_machine():
    facts = environment(("numpy", "no-such-package"))
    assert facts["numpy"] == np.__version__
    assert facts["no-such-package"] is None


def test_bench_train_compares_equal_trainings(capsys):
    words = "bench train --images 24 --batch 8 --width 4 --repeats 1 --device cpu --json"
    assert main(words.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["authors' way", "ours", "ours, bf16-mixed"]
    apart = [float(row["note"].rsplit(" ", 1)[1]) for row in rows[1:]]
    assert apart[0] < 1e-3  # the loss curves agree
    assert 1e-5 < apart[1] < 0.1  # bfloat16's within its rounding, and it is bfloat16


def test_bench_kernels_runs_without_a_gpu(capsys):
    words = "bench kernels --records 2 --params 10 --repeats 1 --device cpu --json"
    assert main(words.split()) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == [
        "device copy",
        "ours, torch B=2 P=10",
        "eager B=2 P=10",
    ]
