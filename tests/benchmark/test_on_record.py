"""The benchmark's page on record is what its runs on record give."""

from __future__ import annotations

import json
import shutil

import pytest

from repro.cli import main
from repro.report.claims import PAPER_RESULTS

RECORD = PAPER_RESULTS / "benchmark"


def done(path, number=float):
    """Every cell that has numbers. AUC needs scores, which are too large to keep here; why there
    are no more seeds depends on what is installed."""
    cells = json.loads((path / "benchmark.json").read_text(), parse_float=number)["cells"]
    return [
        {name: value for name, value in cell.items() if name not in ("seconds", "auc", "reason")}
        for cell in cells
        if cell["status"] == "done"
    ]


def test_the_page_on_record_is_what_its_runs_give(tmp_path, capsys):
    shutil.copytree(RECORD / "runs", tmp_path / "runs")
    assert main(["benchmark", "--record", str(PAPER_RESULTS), "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    found = done(tmp_path)
    # ε is worked out anew: another kind of processor gives other last digits.
    assert found == done(RECORD, lambda text: pytest.approx(float(text), rel=1e-9))
    assert len(found) >= 60
    assert all(cell["n"] >= 3 for cell in found)
