"""The accountant's benchmark: what it measures, and what it says of a peer that is missing."""

import argparse
import sys

import pytest

from repro.bench import accountant, pld


def missing():
    raise ImportError


def test_missing_peers_are_named_not_fatal(monkeypatch):
    """Without the other libraries ours is still measured, and the note says who was not."""
    monkeypatch.setattr(accountant, "_dp_accounting", missing)
    monkeypatch.setattr(accountant, "_opacus", missing)
    monkeypatch.setattr(accountant, "POINTS", pld.POINTS[:1])
    monkeypatch.setitem(sys.modules, "dp_accounting.pld", None)
    parser = argparse.ArgumentParser()
    accountant.configure(parser)
    rows, where = accountant.measure(parser.parse_args(["--repeats", "1"]))
    assert {row.name for row in rows} == {"ours"}
    assert [row.unit for row in rows] == ["ms", "ms", "s", "ε"]
    assert all("dp-accounting, opacus" in row.note for row in rows[:3])
    assert "dp-accounting is not installed" in rows[3].note
    assert rows[0].detail["answer"] == pytest.approx(5.6318, abs=1e-4)
    assert where["python"]


def test_the_contestants_answer_the_same_question():
    """All three agree on ε and on the noise to 1 %, so their times are comparable."""
    pytest.importorskip("dp_accounting")
    (ours, noise), (theirs, their_noise) = accountant._ours(), accountant._dp_accounting()
    assert ours() == pytest.approx(theirs(), rel=0.01)
    assert noise() == pytest.approx(their_noise(), rel=0.01)


def test_the_tight_table_has_both_beside_each_other():
    """One row each a setting; ours within 1 % of dp-accounting's, its lower bound below both."""
    pytest.importorskip("dp_accounting")
    ours, theirs = pld.compare(pld.POINTS[1:2])
    assert (ours.name, theirs.name) == ("ours", "dp-accounting")
    assert ours.metric == theirs.metric
    assert theirs.relative == pytest.approx(1, abs=0.01)
    assert ours.detail["at_least"] <= min(ours.median, theirs.median)
