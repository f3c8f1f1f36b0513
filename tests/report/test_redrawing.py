"""Only what is missing, or was drawn from something that has changed, is drawn again."""

import dataclasses
import json

import pytest

import repro.report.items as experiments
from repro.files import write_changed
from repro.report.cache import Sources
from repro.report.items import ITEMS, draw, draw_all, find
from repro.report.watching import WatchedSources, answer_digest
from repro.runs import RunStore
from tests.report import fake

FEW = ("table1", "table3", "hospitals", "recall", "dpresnet")


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A store of two arms with five items drawn, each from other sources."""
    monkeypatch.setattr(experiments, "ITEMS", tuple(item for item in ITEMS if item.name in FEW))
    fake.store(tmp_path, ["fedavg", "fedavg-secagg"])
    fake.side_files(tmp_path)
    assert drawn_now(tmp_path) == set(FEW)
    assert drawn_now(tmp_path) == set()
    return tmp_path


def drawn_now(out):
    return {item.name for item, _, new in draw_all(Sources.of(out)) if new}


def times(out):
    files = [*(out / "tables").iterdir(), *(out / "figures").iterdir()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_deleting_a_figure_redraws_that_figure_only(out):
    """By modification times too: no other file is written."""
    before = times(out)
    (out / "figures" / "recall.png").unlink()
    assert drawn_now(out) == {"recall"}
    changed = {path.stem for path, when in times(out).items() if before[path] != when}
    assert changed == {"recall"}
    (out / "tables" / "table1.md").write_text("tampered")
    assert drawn_now(out) == {"table1"}


@pytest.mark.parametrize(
    ("arm", "readers"),
    [
        ("dpsgd-eps6", {"table1", "recall"}),
        ("dpsgd-eps3", {"table1"}),
        ("clip-secagg", {"table1", "table3", "recall"}),
    ],
)
def test_a_new_run_redraws_its_readers_only(out, arm, readers):
    """Also where nothing of the arm was there before, so that nothing of it had been read."""
    RunStore(out).save(fake.record(arm, 10, 0))
    assert drawn_now(out) == readers


def test_a_run_made_again_redraws_only_what_shows_its_times(out):
    """Bit-identical but for times and machines; Table 3 shows how long aggregation took."""
    store = RunStore(out)
    for arm, readers in (("fedavg", set()), ("fedavg-secagg", {"table3"})):
        run = fake.record(arm, 10, 0)
        (store.folder(run.run_id) / "record.json").unlink()
        again = dataclasses.replace(
            run, wall_seconds=99.0, finished="later", resumed=3, timings={"aggregation": 7.0}
        )
        store.save(again)
        assert drawn_now(out) == readers


def test_a_side_file_redraws_its_readers_only(out):
    (out / "bench").mkdir()
    (out / "bench" / "secagg.json").write_text('{"rows": [], "environment": {}}')
    assert drawn_now(out) == {"table3"}
    path = out / "partition" / "k20.json"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), seed=7)))
    assert drawn_now(out) == {"hospitals"}


def test_other_code_redraws_everything(out, monkeypatch):
    monkeypatch.setattr("repro.report.cache.code_digest", lambda: "other")
    assert drawn_now(out) == set(FEW)


@pytest.mark.parametrize("note", ["{", "[]", '{"code": "x"}', '{"files": {}, "inputs": {}}', None])
def test_a_broken_or_missing_note_means_drawing_again(out, note):
    path = out / ".drawn" / "dpresnet.json"
    path.unlink() if note is None else path.write_text(note)
    assert drawn_now(out) == {"dpresnet"}


def test_a_question_this_version_does_not_know_means_drawing_again(out):
    path = out / ".drawn" / "dpresnet.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | {"inputs": {"weather tomorrow": "fine"}}))
    assert drawn_now(out) == {"dpresnet"}


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_watching_changes_nothing_and_names_what_is_read(drawn, sources, item):
    """Figures name the runs they read; those that need none read none."""
    asked = json.loads((drawn / ".drawn" / f"{item.name}.json").read_text())["inputs"]
    runs = {question for question in asked if "runs" in question.split()}
    if item.name in ("dpresnet", "epsilon"):
        assert asked == {}
    elif item.name in ("hospitals", "labels"):
        assert set(asked) == {"profile", "side partition/k10", "side partition/k20"}
    elif item.kind == "figure":
        assert runs
        assert "all runs" not in runs
    if item.kind == "table":
        assert item.load().build(WatchedSources(sources)) == item.load().build(sources)


def test_every_kind_of_question_notices_its_change(tmp_path):
    """Each digest differs after a change of what it asks, and not after a change elsewhere."""
    store = fake.store(tmp_path, ["fedavg", "single"])
    questions = {
        "runs": "runs fedavg 10",
        "timed": "timed runs fedavg 10",
        "all": "all runs",
        "data": "data",
        "profile": "profile",
        "claims": "claims",
        "side": "side models",
    }

    def digests():
        sources = Sources.of(tmp_path)
        return {name: answer_digest(sources, text) for name, text in questions.items()}

    def changed_by(change):
        before = digests()
        change()
        return {name for name, digest in digests().items() if digest != before[name]}

    run, other = fake.record("fedavg", 10, 0), fake.record("single", 10, 0)
    slow, worse = {"timings": {"training": 9.0}}, {"final_accuracy": 0.1}
    assert changed_by(lambda: store.save(dataclasses.replace(run, **slow))) == {"timed"}
    assert changed_by(lambda: store.save(dataclasses.replace(other, **worse))) == {"all"}
    assert changed_by(lambda: store.save(dataclasses.replace(run, **worse))) == {
        "runs",
        "timed",
        "all",
    }
    assert changed_by(lambda: (tmp_path / "models.json").write_text("{}")) == {"side"}
    fake.store(tmp_path, ["fedavg"], kind="rebuilt")  # a better group, so another one is shown
    rebuilt = {"profile", "data", "all", "runs", "timed"}
    assert changed_by(lambda: fake.store(tmp_path, ["fedavg"], kind="official")) == rebuilt


def test_drawing_one_item_by_name_leaves_a_note_that_holds(out):
    (out / "figures" / "recall.svg").unlink()
    draw(find("figure", "recall"), Sources.of(out))
    assert drawn_now(out) == set()


def test_equal_content_is_not_written_again(tmp_path):
    path = tmp_path / "a" / "file"
    write_changed(path, "é")
    before = path.stat()
    write_changed(path, "é")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_changed(path, "e")
    assert path.read_text() == "e"
