"""How it was measured: warnings told once, with all their counts."""

from repro.report.methods import _alike


def test_warnings_that_differ_by_counts_are_one():
    every = ["2 of them, in 3 places", "noise {key} known", "5 of them, in 3 places", "7"]
    assert _alike(every) == ["2, 5 of them, in 3 places", "noise {key} known", "7"]
    assert _alike([]) == []
