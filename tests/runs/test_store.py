"""One damaged record costs its own run, and nothing else in the store."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from repro.ablations.base import base
from repro.federated.parallel.campaign import run_all
from repro.report.sources import Sources
from repro.runs import RunRecord, RunStore
from repro.runs.profiles import PROFILES
from repro.runs.record import best_round
from tests.federated.small import small_dataset
from tests.report import fake

WHOLE = fake.record("fedavg", 10, 0).as_dict()


def changed(**fields):
    return json.dumps(WHOLE | fields).encode()


def without(*names):
    return json.dumps({name: value for name, value in WHOLE.items() if name not in names}).encode()


DAMAGED = {
    "empty": b"",
    "cut short": json.dumps(WHOLE).encode()[:1000],
    "not text": b"\xff\xfe\x00\x01" * 50,
    "too deep": b"[" * 100_000,
    "a list": b"[1, 2]",
    "null": b"null",
    "another format": changed(format=2),
    "no format": without("format"),
    "a field missing": without("history", "confusion"),
    "a wrong type": changed(hospitals="ten"),
    "a truth for a number": changed(final_accuracy=True),
    "history without accuracy": changed(history=[{"round": 0, "loss": 1.0}]),
    "no history": changed(history=[]),
    "a crooked matrix": changed(confusion=[[1, 2], [3]]),
    "privacy of text": changed(privacy=["private"]),
    "settings without rounds": changed(settings={}),
    "another run's": changed(run_id="fedavg-k10-s1-quick-0123456789"),
}


@pytest.fixture
def store(tmp_path):
    return fake.store(tmp_path, ["fedavg", "single"])


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_left_out_with_one_line_that_names_it(store, content, capsys):
    """The other runs are all there, and loading that one says that it is missing."""
    (store.folder(WHOLE["run_id"]) / "record.json").write_bytes(content)
    found = store.all()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: record of run {WHOLE['run_id']}: got ")
    assert "repro run fedavg --hospitals 10 --seed 0 --profile quick" in line
    assert str(store.root) in line
    assert len(found) == 11
    assert WHOLE["run_id"] not in {record.run_id for record in found}
    assert store.load(WHOLE["run_id"]) is None
    assert capsys.readouterr().err == ""
    assert len(Sources.of(store.root).evidence.runs("fedavg", 10)) == 2


def test_saving_replaces_a_damaged_record(store):
    run = RunRecord.from_dict(WHOLE)
    (store.folder(run.run_id) / "record.json").write_bytes(b"{")
    store.save(run)
    assert store.load(run.run_id) == run


def test_whole_records_say_nothing(store, capsys):
    assert len(store.all()) == 12
    assert capsys.readouterr().err == ""
    assert store.load("never-run") is None


def test_a_name_that_tells_no_command_is_named_all_the_same(store, capsys):
    path = store.folder("copy of something") / "record.json"
    path.parent.mkdir()
    path.write_text(json.dumps(WHOLE))
    assert len(store.all()) == 12
    (line,) = capsys.readouterr().err.splitlines()
    assert "copy of something" in line
    assert "repro run" not in line


def test_fields_with_defaults_may_be_missing():
    """Records from before a field with a default was added are still good."""
    data = {name: value for name, value in WHOLE.items() if name != "resumed"}
    assert RunRecord.from_dict(data) == RunRecord.from_dict(WHOLE)


def test_of_equal_rounds_the_first_is_the_best_round():
    """As ``max`` over a list in the authors' code would find it, in whatever order they stand."""
    history = [{"round": r, "accuracy": a} for r, a in enumerate([0.1, 0.8, 0.5, 0.8])]
    assert best_round(history) == best_round(history[::-1]) == (0.8, 1)


def test_losses_that_are_no_numbers_are_kept(store):
    """NaN and ∞ are results, not damage."""
    history = [dict(entry, loss=float("nan")) for entry in WHOLE["history"]]
    run = dataclasses.replace(RunRecord.from_dict(WHOLE), history=history, final_loss=float("inf"))
    store.save(run)
    found = store.load(run.run_id)
    assert found is not None
    assert found.final_loss == float("inf")


def test_only_the_damaged_run_is_made_again_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.federated.parallel.campaign.os.cpu_count", lambda: 1)
    dataset, store = small_dataset(), RunStore(tmp_path)
    runs = [base(arm, PROFILES["smoke"], 3) for arm in ("fedavg", "single")]
    before = run_all(runs, dataset, store, device="cpu")
    paths = [store.folder(record.run_id) / "record.json" for record in before]
    times = [path.stat().st_mtime_ns for path in paths]
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    after = run_all(runs, dataset, store, device="cpu")
    assert [record.stable() for record in after] == [record.stable() for record in before]
    assert paths[1].stat().st_mtime_ns == times[1]
    assert store.load(before[0].run_id) == after[0]


def test_gathered_runs_are_the_same_runs(store, capsys):
    """One file an arm, lines by id, every byte of a record kept; scores stay where they were."""
    run = RunRecord.from_dict(WHOLE)
    store.save(run, np.zeros((2, 8)))
    later = {"format": 1, **WHOLE, "a field of another version": [0.1, float("nan")]}
    (store.folder(run.run_id) / "record.json").write_text(json.dumps(later))
    before = store.all()
    assert [path.name for path in store.gather()] == ["fedavg.jsonl", "single.jsonl"]
    assert [path.name for path in store.runs.iterdir() if path.name != "quick"] == [run.run_id]
    assert store.all() == before
    assert [store.load(one.run_id) for one in before] == before
    assert store.scores(run.run_id) is not None
    lines = (store.runs / "quick" / "fedavg.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert [one["run_id"] for one in told] == sorted(one["run_id"] for one in told)
    (kept,) = [line for line in lines if run.run_id in line]
    assert kept == json.dumps({"run_id": run.run_id, **later})
    assert store.gather() == []
    assert capsys.readouterr().err == ""


def test_a_run_made_again_takes_the_gathered_ones_place(store):
    store.gather()
    again = dataclasses.replace(RunRecord.from_dict(WHOLE), wall_seconds=1.5)
    store.save(again)
    for _ in range(2):
        assert store.load(again.run_id) == again
        assert len(store.all()) == 12
        store.gather()
    assert not store.folder(again.run_id).exists()


@pytest.mark.parametrize("content", [b"", b"{", changed(format=2), changed(profile=3)])
def test_a_damaged_line_costs_its_own_run(store, content, capsys):
    store.gather()
    path = store.runs / "quick" / "fedavg.jsonl"
    lines = path.read_bytes().splitlines()
    (number,) = [n for n, line in enumerate(lines) if WHOLE["run_id"].encode() in line]
    lines[number] = content
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert len(store.all()) == 11
    (said,) = capsys.readouterr().err.splitlines()
    named = WHOLE["run_id"] if len(content) > 1 else f"in line {number + 1} of quick/fedavg.jsonl"
    assert said.startswith(f"left out: record of run {named}: got ")
    assert store.load(WHOLE["run_id"]) is None


def test_a_gathering_that_is_killed_can_be_done_again(store, monkeypatch):
    """Stopped when its lines are on disk and no folder has gone yet."""
    before = store.all()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            store.gather()
    assert len(list(store.runs.glob("*/record.json"))) == 12
    assert store.all() == before
    store.gather()
    assert store.all() == before
    assert not list(store.runs.glob("*/record.json"))


def test_what_is_no_runs_name_or_damaged_stays_in_its_folder(store, capsys):
    (store.folder(WHOLE["run_id"]) / "record.json").write_bytes(b"{")
    own = store.folder("a copy") / "record.json"
    own.parent.mkdir()
    own.write_text(json.dumps(WHOLE | {"run_id": "a copy"}))
    store.gather()
    assert {path.parent.name for path in store.runs.glob("*/record.json")} == {
        "a copy",
        WHOLE["run_id"],
    }
    assert WHOLE["run_id"] in capsys.readouterr().err
