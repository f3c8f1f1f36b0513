"""``repro label``: how a run is named, what is written, what is refused; the example in docs/."""

import json
from pathlib import Path

import pytest

from repro.cli import main
from repro.runs.store import RunStore
from tests.cli.commands import refused

ROOT = Path(__file__).resolve().parents[2]
RECORDS = str(ROOT / "paper_results")
ARM = ["turned-newton-eps6-all", "--hospitals", "10", "--seed", "0"]
NAME = "turned-newton-eps6-all-k10-s0-quick-a859b2e492"


def said(capsys, *words):
    assert main(["label", *words]) == 0
    return capsys.readouterr().out


def test_the_example_in_the_documentation_is_what_the_command_says(capsys):
    page = (ROOT / "docs" / "privacy-label.md").read_text(encoding="utf-8")
    example = page.split("<!-- example -->\n")[1].split("<!-- end -->")[0].strip()
    # One level down, as the page has a title of its own.
    label = said(capsys, *ARM, "--runs", RECORDS).strip().replace("# ", "## ", 1)
    assert example == label.replace("\n## ", "\n### ")


def test_a_run_may_be_named_in_four_ways(tmp_path, capsys):
    record = RunStore(RECORDS, written=False).load(NAME)
    RunStore(tmp_path).save(record)
    audit = tmp_path / "audit" / f"{record.arm}.json"
    audit.parent.mkdir()
    audit.write_bytes((Path(RECORDS) / "audit" / audit.name).read_bytes())
    folder = tmp_path / "runs" / NAME
    by_arm = said(capsys, *ARM, "--runs", RECORDS, "--json")
    assert json.loads(by_arm)["basic"]["name"] == NAME
    for words in ([NAME, "--runs", RECORDS], [str(folder)], [str(folder / "record.json")]):
        assert said(capsys, *words, "--json") == by_arm


def test_it_is_written_as_three_files(tmp_path, capsys):
    text = said(capsys, NAME, "--runs", RECORDS, "--out", str(tmp_path / "labels"))
    files = {path.suffix: path for path in (tmp_path / "labels").iterdir()}
    assert {path.stem for path in files.values()} == {NAME}
    assert files[".md"].read_text(encoding="utf-8") == text
    assert json.loads(files[".json"].read_text(encoding="utf-8"))["format"] == 1
    assert files[".html"].read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    "words",
    [
        ["no-such-run"],
        ["fedavg", "--seed", "99"],
        ["fedavg", "--profile", "huge"],
        [*ARM, "--runs", "/no/such/folder"],
    ],
)
def test_a_run_that_is_not_there_is_one_line_and_exit_2(tmp_path, capsys, words):
    runs = [] if "--runs" in words else ["--runs", RECORDS]
    refused(capsys, "label", *words, *runs, "--out", tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_a_record_that_cannot_be_read_or_believed_is_one_line_and_exit_2(tmp_path, capsys):
    record = RunStore(RECORDS, written=False).load(NAME).as_dict()
    record["privacy"][3]["epsilon_total"] = 1.0
    path = tmp_path / "record.json"
    for content in ("{", "[]", json.dumps(record)):
        path.write_text(content, encoding="utf-8")
        refused(capsys, "label", tmp_path)
