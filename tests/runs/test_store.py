"""One damaged record costs its own run, and nothing else in the store."""

import dataclasses
import json

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
