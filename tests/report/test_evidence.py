"""Only comparable runs end up in one table."""

import dataclasses
import re

import pytest

from repro.errors import InputError
from repro.report.answer import answer
from repro.report.evidence import data_kind, gather, is_canonical
from repro.report.items import FIGURES, TABLES, draw
from repro.report.sources import Sources
from repro.report.verdicts import judge
from repro.runs import RunStore
from repro.runs.profiles import PROFILES
from tests.report import fake


def test_kinds_of_data_are_told_apart():
    for kind in ("official", "rebuilt", "synthetic"):
        assert data_kind(fake.dataset(kind)) == kind
    assert data_kind({"official": False, "source": "a file that is not the official one"}) == "file"


def test_profiles_and_data_sets_are_never_mixed(tmp_path):
    fake.store(tmp_path, ["fedavg"], "quick", "synthetic")
    fake.store(tmp_path, ["fedavg", "single"], "quick", "rebuilt")
    fake.store(tmp_path, ["fedavg"], "smoke", "official")
    store = RunStore(tmp_path)
    best = gather(store.all())
    assert (best.profile, best.kind, len(best.records)) == ("quick", "rebuilt", 12)
    assert gather(store.all(), fingerprint="fake-synthetic").kind == "synthetic"
    assert gather(store.all(), "smoke").kind == "official"
    assert gather(store.all(), "paper").records == ()


def test_any_profile_can_be_drawn_and_the_one_that_trains_most_is(tmp_path, monkeypatch):
    """Nothing rests on the names or the numbers of hospitals of the profiles there are today."""
    new = dataclasses.replace(
        PROFILES["quick"], name="one-core", width=16, hospitals=(10,), seeds=(0, 1), rounds=20
    )
    monkeypatch.setitem(PROFILES, "one-core", new)
    fake.store(tmp_path, ["fedavg"], "quick")
    fake.store(tmp_path, ["fedavg", "dpsgd-eps6-secagg"], "one-core")
    sources = Sources.of(tmp_path)
    assert sources.evidence.profile == "one-core"
    assert Sources.of(tmp_path, profile="quick").evidence.profile == "quick"
    for item in TABLES[0], FIGURES[2], FIGURES[4], FIGURES[5]:
        assert draw(item, sources)
    given = answer(sources, judge(sources))
    keys = [column.key for column in given.table.columns]
    assert keys == ["group", "what", "epsilon", "attack", "epochs", "k10"]
    assert "width 16 instead of 64, 20 rounds instead of 50" in given.scope
    assert re.search(r"4 of \d+ runs", str(given.sure))
    fake.store(tmp_path, ["fedavg"], "paper")
    assert Sources.of(tmp_path).evidence.profile == "paper"


def test_an_ablation_or_an_unseeded_run_is_no_evidence(tmp_path):
    run = fake.record("fedavg", 10, 0)
    assert is_canonical(run)
    settings = dict(run.settings, local=dict(run.settings["local"], batch_size=64))
    assert not is_canonical(dataclasses.replace(run, settings=settings))
    assert not is_canonical(dataclasses.replace(run, seed=None))
    assert not is_canonical(dataclasses.replace(run, settings=dict(run.settings, rounds=1)))


def test_a_setting_added_later_does_not_void_a_run():
    run = fake.record("dpsgd-eps6", 10, 0)
    settings = {key: value for key, value in run.settings.items() if key != "threads"}
    assert is_canonical(dataclasses.replace(run, settings=settings))


def test_an_empty_store_says_so(tmp_path):
    evidence = gather(RunStore(tmp_path / "nothing").all())
    assert evidence.final("fedavg", 10) is None
    assert "no run yet" in evidence.caption()
    assert not (tmp_path / "nothing").exists()


def test_an_unknown_profile_is_refused(tmp_path):
    with pytest.raises(InputError, match="profile"):
        gather([], "huge")
