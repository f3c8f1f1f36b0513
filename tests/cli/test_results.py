"""``repro table``, ``repro figure``, ``repro report``: paths, bad input, light imports."""

import json
import os
from pathlib import Path

import pytest

from repro.cli import main
from repro.report.content import ablation_summary
from repro.report.documents import ablation_sections
from repro.report.sources import Sources
from tests.cli.commands import ask, refused
from tests.report import fake


@pytest.fixture
def out(tmp_path):
    fake.store(tmp_path, ["fedavg"])
    return tmp_path


@pytest.mark.parametrize(("kind", "item"), [("table", "1"), ("figure", "recall"), ("figure", "9")])
def test_json_gives_the_paths_that_were_written(out, capsys, kind, item):
    given = ask(capsys, kind, item, "--out", out)
    assert given["path"] == given["paths"][0]
    assert all(Path(path).is_file() for path in given["paths"])
    assert given["profile"] == "quick"


def test_runs_may_lie_elsewhere(out, tmp_path, capsys):
    there = tmp_path / "there"
    assert main(["table", "1", "--out", str(there), "--runs", str(out), "--json"]) == 0
    assert "FAKE" in (there / "tables" / "table1.md").read_text()


BAD = ("table 99", "table accuracy", "figure nothing", "figure 0", "table 1 --profile huge")


@pytest.mark.parametrize("line", [*BAD, "report --profile huge"])
def test_bad_input_is_one_line_exit_2_and_leaves_nothing(tmp_path, capsys, line):
    out = tmp_path / "new"
    refused(capsys, *line.split(), "--out", out)
    assert not out.exists()


def test_a_broken_record_is_named_and_left_out(out, capsys):
    """The table is drawn from the other runs, and one line says which is missing and why."""
    record = next((out / "runs").glob("*-k10-s0-*/record.json"))
    record.write_text("{")
    assert main(["table", "1", "--out", str(out), "--json"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert record.parent.name in line
    assert "repro run fedavg --hospitals 10 --seed 0 --profile quick" in line
    rows = json.loads((out / "tables" / "table1-arms.json").read_text())["rows"]
    seeds = {(row["arm"], row["hospitals"]): row["n"] for row in rows}
    assert seeds["fedavg", "10"] == "2"
    assert seeds["fedavg", "20"] == "3"


@pytest.mark.parametrize("words", [["table", "1"], ["figure", "recall"], ["report"]])
def test_a_folder_without_runs_is_refused(tmp_path, capsys, words):
    typo = tmp_path / "reproducton"
    line = refused(capsys, *words, "--out", typo)
    assert line.startswith(f"repro {words[0]}: out: got")
    assert "repro reproduce" in line
    assert not typo.exists()
    assert "runs: got" in refused(capsys, *words, "--out", tmp_path / "new", "--runs", typo)
    assert not list(tmp_path.iterdir())


def test_a_profile_without_runs_is_refused(out, capsys):
    assert "'quick'" in refused(capsys, "table", "1", "--out", out, "--profile", "paper")


def test_side_files_beside_the_runs_are_found(out, tmp_path_factory, capsys):
    """Partition, bench and ablations, by --runs, with links that lead to them."""
    fake.side_files(out)
    (out / "bench").mkdir()
    (out / "bench" / "secagg.json").write_text('{"rows": []}')
    there = tmp_path_factory.mktemp("drawn")
    assert main(["figure", "hospitals", "--out", str(there), "--runs", str(out)]) == 0
    assert main(["figure", "hospitals", "--out", str(out)]) == 0
    drawn = [folder / "figures" / "hospitals.svg" for folder in (there, out)]
    assert drawn[0].read_bytes() == drawn[1].read_bytes()
    sources = Sources.of(there, runs=out)
    assert sources.side("bench/secagg") == {"rows": []}
    assert sources.side("partition/k20")["hospitals"] == 20
    (out / "ablations" / "clip-norm.json").write_text('{"data": {"variants": []}, "caption": ""}')
    assert ablation_summary(sources).rows[0]["name"] == "clip-norm"
    assert "drawn" in ablation_sections(sources)
    before = sources.digest
    (out / "bench" / "secagg.json").write_text('{"rows": [1]}')
    assert Sources.of(there, runs=out).digest != before, "redrawn when they change"


def test_a_store_that_is_only_read_may_be_read_only(out, tmp_path_factory, monkeypatch, capsys):
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda p, mode: not Path(p).is_relative_to(out) and allowed(p, mode)
    )
    there = tmp_path_factory.mktemp("there")
    assert main(["table", "1", "--out", str(there), "--runs", str(out)]) == 0
    assert main(["table", "1", "--out", str(out)]) == 2
