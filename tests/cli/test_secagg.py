"""``repro secagg``: its contract, as a script sees it."""

from __future__ import annotations

import pytest

from repro.cli import main
from tests.cli.commands import ask, refused

PHASES = ["advertise", "share", "verify", "masked", "consistency", "unmask"]
SMALL = ["secagg", "--hospitals", "5", "--dimension", "50", "--threshold", "3"]
SMALL += ["--neighbours", "4", "--seed", "7"]


def test_full_attendance(capsys):
    data = ask(capsys, *SMALL)
    assert data["ok"] is True
    assert data["survivors"] == [0, 1, 2, 3, 4]
    assert data["dropped"] == []
    assert 0 < data["max_error"] <= data["error_bound"]
    assert list(data["bytes"]["up"]) == PHASES
    assert list(data["seconds"]["server"]) == PHASES


@pytest.mark.parametrize("phase", PHASES)
def test_a_loss_in_each_phase(capsys, phase):
    """Lost before its masked input: not in the sum. Lost later: still in it."""
    data = ask(capsys, *SMALL, "--drop", f"{phase}:2")
    assert data["ok"] is True
    assert data["dropped"] == [2]
    assert (2 in data["survivors"]) == (phase in ("consistency", "unmask"))
    assert data["max_error"] <= data["error_bound"]


@pytest.mark.parametrize("phase", PHASES)
def test_below_threshold_is_exit_3_and_reveals_nothing(capsys, phase):
    drops = [word for one in (0, 1, 2) for word in ("--drop", f"{phase}:{one}")]
    data = ask(capsys, *SMALL, *drops, status=3)
    assert (data["ok"], data["max_error"], data["phase"]) == (False, None, phase)
    assert (data["survivors"], data["dropped"]) == ([], [0, 1, 2])


def test_same_seed_same_error(capsys):
    assert ask(capsys, *SMALL)["max_error"] == ask(capsys, *SMALL)["max_error"]


BAD = {
    "--drop": ("masked", "lunch:1", "masked:5", "masked:-1", "masked:one"),
    "--threshold": (2, 6),
    "--neighbours": (5, 3),
    "--hospitals": (1, 0),
    "--dimension": (0,),
    "--seed": (-1,),
    "--clip-range": (0,),
    "--max-weight": (0,),
}


@pytest.mark.parametrize("words", [(name, value) for name, its in BAD.items() for value in its])
def test_bad_input_is_one_line_and_exit_2(capsys, words):
    refused(capsys, *SMALL, *words)


def test_text_for_people(capsys):
    assert main(SMALL) == 0
    assert "survivors    5: 0 1 2 3 4" in capsys.readouterr().out


def test_with_real_processes(capsys):
    """The same sum, to the bit, from processes over TCP, one of them killed."""
    words = [*SMALL, "--drop", "share:4"]
    apart, together = ask(capsys, *words, "--processes"), ask(capsys, *words)
    assert apart["survivors"] == [0, 1, 2, 3]
    assert apart["max_error"] == together["max_error"]
    assert apart["bytes"]["up"] == together["bytes"]["up"]
