"""The accountant's benchmark: what it measures, and what it says of a peer that is missing."""

import argparse

import pytest

from repro.bench import accountant, box


def missing():
    raise ImportError


def test_missing_peers_are_named_not_fatal(monkeypatch):
    """Without the other libraries ours is still measured, and the note says who was not."""
    monkeypatch.setattr(accountant, "_dp_accounting", missing)
    monkeypatch.setattr(accountant, "_opacus", missing)
    monkeypatch.setattr(box, "points", lambda: box.NAMED[:1])
    parser = argparse.ArgumentParser()
    accountant.configure(parser)
    rows, where = accountant.measure(parser.parse_args(["--repeats", "1"]))
    assert {row.name for row in rows} == {"ours"}
    assert [row.unit for row in rows] == ["ms", "ms", "s", "ε", "settings"]
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
