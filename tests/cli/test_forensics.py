"""``repro forensics`` from the command to the record and the table, without a network."""

import json
import os

import pytest

from repro.cli import main
from tests.cli.commands import refused
from tests.forensics import fake


def test_the_record_and_the_table_from_environments_that_are_kept(tmp_path, capsys):
    fake.environments(tmp_path / "kept")
    out = tmp_path / "out"
    words = ["--out", str(out), "--keep", str(tmp_path / "kept")]
    assert main(["forensics", *words, "--json"]) == 0
    printed, errors = capsys.readouterr()
    kept = json.loads((out / "forensics.json").read_text())
    assert json.loads(printed) == kept
    assert all(line.endswith(": running") for line in errors.splitlines())
    assert [one["release"] for one in kept["releases"]] == ["1.13.1", "1.14.0"]
    assert str(tmp_path) not in printed
    assert kept["ours"]["clip"]["modifier"]["all_equal"]
    assert main(["table", "8", "--out", str(out)]) == 0
    text = (out / "tables" / "table8.md").read_text()
    assert "| 0 (every draw the same) | 0.69" in text
    assert text.count("KeyError 'fitins.parameters' in localdp_mod at setup") == 4


def test_offline_is_one_line_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    """The real venv and pip, told that there is no index."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    keep, out = tmp_path / "keep", tmp_path / "out"
    assert main(["forensics", "--keep", str(keep), "--out", str(out), "--json"]) == 2
    printed, errors = capsys.readouterr()
    *before, line = errors.splitlines()
    assert before == ["flwr 1.13.1: installing into an environment of its own"]
    assert line.startswith("repro forensics: flwr 1.13.1: got 'ERROR: No matching distribution")
    assert "registry" in line
    assert printed == ""
    assert not list(keep.iterdir())
    assert not out.exists()


@pytest.mark.parametrize("option", ["--keep", "--out"])
def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path, capsys, option):
    (tmp_path / "file").write_text("")
    line = refused(capsys, "forensics", option, tmp_path / "file" / "below")
    assert line.startswith(f"repro forensics: {option[2:]}: got")
