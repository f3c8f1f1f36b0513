"""``repro reproduce`` in the smoke profile: runs, side files, tables, figures, report, verdicts."""

import json

from repro.cli import main
from repro.report.items import FIGURES, TABLES


def test_a_refusal_is_all_that_is_said(tmp_path, capsys):
    """Arms that cannot run here are named when nothing can be refused any more."""
    words = ["reproduce", "--profile", "smoke", "--data", "nowhere.npz", "--out", str(tmp_path)]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere.npz" in line


def test_reproduce_leaves_everything_and_repeats_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["reproduce", "--profile", "smoke", "--data", "synthetic", "--out", str(out)]
    words += ["--arms", "fedavg,fedavg-secagg,single", "--hospitals", "10"]
    words += ["--device", "cpu", "--json"]
    assert main(words) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["verdicts"]
    for table in TABLES:
        assert list((out / "tables").glob(f"{table.name}*.md")), table
    for figure in FIGURES:
        assert (out / "figures" / f"{figure.name}.svg").exists(), figure
        assert (out / "figures" / f"{figure.name}.png").exists(), figure
    html = (out / "report.html").read_text()
    assert "synthetic stand-in" in html
    assert {path.name for path in out.iterdir()} >= {"runs", "partition", "models.json"}

    kept = [path for kind in ("tables", "figures", "runs") for path in (out / kind).rglob("*.*")]
    times = {path: path.stat().st_mtime_ns for path in [*kept, *out.glob("report.*")]}
    assert len([path for path in times if path.name == "record.json"]) == 3
    removed = out / "figures" / "accuracy.svg"
    content = removed.read_bytes()
    removed.unlink()
    assert main(words) == 0
    assert removed.read_bytes() == content
    changed = {path for path, when in times.items() if path.stat().st_mtime_ns != when}
    assert changed == {removed, removed.with_suffix(".png")}
