"""Only what is missing, or may have been drawn from something that has changed, is drawn again."""

import dataclasses
import json
import shutil

import pytest

import repro.report.items as items
from repro.files import write_changed
from repro.report import cache
from repro.report.items import ITEMS, draw, draw_all, find
from repro.report.sources import Sources
from repro.runs import RunStore
from tests.report import fake

FEW = ("table1", "table3", "recall", "dpresnet")


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory):
    """A store of two arms with four items drawn."""
    folder = tmp_path_factory.mktemp("drawn") / "out"
    fake.store(folder, ["fedavg", "fedavg-secagg"])
    fake.side_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "ITEMS", tuple(item for item in ITEMS if item.name in FEW))
        assert drawn_now(folder) == set(FEW)
        assert drawn_now(folder) == set()
    return folder


@pytest.fixture
def out(drawn_once, tmp_path, monkeypatch):
    """A copy of it, to change: by its bytes nothing in it needs drawing again."""
    monkeypatch.setattr(items, "ITEMS", tuple(item for item in ITEMS if item.name in FEW))
    return shutil.copytree(drawn_once, tmp_path / "out")


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


def test_whatever_may_be_drawn_has_a_part_in_the_digest(out):
    """Each kind of change, also where nothing of the kind was there before."""
    store, run = RunStore(out), fake.record("fedavg", 10, 0)

    def side(name):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text('{"rows": [], "environment": {}}')

    for change in (
        lambda: store.save(fake.record("clip-secagg", 10, 0)),  # a new run
        lambda: store.save(dataclasses.replace(run, final_accuracy=0.1)),  # another result
        lambda: store.save(dataclasses.replace(run, timings={"training": 9.0})),  # Table 3's times
        lambda: side("bench/secagg.json"),
        lambda: side("audit/fedavg.json"),
        lambda: side("models.json"),
        lambda: (out / "partition" / "k20.json").unlink(),
    ):
        before = Sources.of(out).digest
        change()
        assert Sources.of(out).digest != before
    assert drawn_now(out) == set(FEW)


def test_what_no_item_shows_changes_nothing(out):
    """A run made again, bit-identical but for when it was, and runs of an extended length."""
    run = fake.record("fedavg", 10, 0)
    RunStore(out).save(dataclasses.replace(run, wall_seconds=99.0, finished="later", resumed=3))
    (out / "notes.txt").write_text("mine")
    assert drawn_now(out) == set()


def test_other_code_redraws_everything(out, monkeypatch):
    monkeypatch.setattr("repro.report.cache.code_digest", lambda: "other")
    assert drawn_now(out) == set(FEW)


@pytest.mark.parametrize("name", ["table.py", "templates/table.html", "templates/report.css"])
def test_modules_and_templates_are_the_drawing_code(tmp_path, monkeypatch, name):
    package = shutil.copytree(cache.PACKAGE, tmp_path / "repro")
    monkeypatch.setattr(cache, "PACKAGE", package)
    before = cache.code_digest.__wrapped__()
    assert before == cache.code_digest.__wrapped__()
    file = package / "report" / name
    file.write_text(file.read_text() + " ")
    assert cache.code_digest.__wrapped__() != before


@pytest.mark.parametrize("note", ["{", "[]", '{"code": "x"}', '{"files": {}, "inputs": {}}', None])
def test_a_broken_or_missing_note_means_drawing_again(out, note):
    path = out / ".drawn" / "dpresnet.json"
    path.unlink() if note is None else path.write_text(note)
    assert drawn_now(out) == {"dpresnet"}


def test_drawing_one_item_by_name_leaves_a_note_that_holds(out):
    (out / "figures" / "recall.svg").unlink()
    draw(find("figure", "recall"), Sources.of(out))
    assert drawn_now(out) == set()
    assert json.loads((out / ".drawn" / "recall.json").read_text())["files"]


def test_equal_content_is_not_written_again(tmp_path):
    path = tmp_path / "a" / "file"
    write_changed(path, "é")
    before = path.stat()
    write_changed(path, "é")
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_changed(path, "e")
    assert path.read_text() == "e"
