"""Real processes over mutual TLS, killed at random: nothing lost, nothing revealed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from repro.cli import main
from repro.errors import InputError
from tests.secagg.deploy import soak as module
from tests.secagg.deploy.soak import Federation, Outcome, Plan, soak

SHORT = Plan(rounds=4, hospitals=4, threshold=3, neighbours=3, dimension=200, kills=1.0, seed=3)


@pytest.fixture(scope="module")
def soaked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    return folder, soak(folder, SHORT)


def test_a_short_soak(soaked):
    _, outcome = soaked
    assert outcome.findings == []
    assert outcome.sums >= 4
    assert outcome.numbers >= outcome.sums
    assert 0 < outcome.worst <= 1
    assert outcome.compared > 0
    assert outcome.opened > 0


def test_the_command_line_audits_what_a_soak_left(soaked, capsys):
    folder, _ = soaked
    logs = [str(path) for path in sorted(folder.glob("*/transcript.log"))]
    assert main(["secagg", "audit-log", *logs, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ok"]
    assert len(data["logs"]) == 5


def test_a_soak_can_fail(soaked, tmp_path):
    """A sum that is not its survivors', and a number that was used twice, are found."""
    folder, _ = soaked
    federation = Federation.__new__(Federation)
    federation.folder, federation.plan = folder, replace(SHORT, seed=4)  # other vectors
    federation.results = folder / "server" / "results"
    outcome = Outcome()
    module._check_sums(federation, outcome)
    assert len(outcome.findings) == outcome.sums
    assert "not the sum of" in outcome.findings[0]


def test_a_soak_wants_a_folder_of_its_own(tmp_path):
    (tmp_path / "something").touch()
    with pytest.raises(InputError, match="empty"):
        soak(tmp_path, SHORT)
