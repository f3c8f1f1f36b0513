"""Table 8, with a record of what was executed and without one."""

import json
import shutil

from repro.report.answer import answer
from repro.report.claims import PAPER_RESULTS, load_claims
from repro.report.items import find
from repro.report.sources import Sources
from repro.report.table import NOT_RUN


def table_of(out):
    (table,) = find("table", "8").build(Sources.of(out))
    return table


def test_nothing_executed_is_said(tmp_path):
    table = table_of(tmp_path)
    assert len(table.rows) == 7
    assert {row[key] for row in table.rows for key in row if key != "what"} == {NOT_RUN}
    assert "repro forensics" in table.caption


def test_the_record_is_shown_beside_ours(tmp_path):
    shutil.copy(PAPER_RESULTS / "forensics.json", tmp_path)
    table = table_of(tmp_path)
    cells = [table.cells(row)[1:] for row in table.rows]
    assert cells[0][0] == "0 (every draw the same)"
    assert cells[0][2] == cells[0][0]
    for measured in (cells[0][1], cells[0][3]):
        assert abs(float(measured) - 0.698873) < 0.005
    assert cells[1] == ["0.6989", "0.6989", "–", "–"]
    assert cells[2][0] == cells[2][2] == "7.00"
    failing, running = cells[3:5], cells[5:7]
    for row in failing:
        for shown in row[:2]:
            assert shown.startswith("KeyError 'fitins.parameters' in localdp_mod at setup\n")
            assert shown.endswith("0 of 2 rounds change the model")
        assert all(shown.startswith("runs; ") for shown in row[2:])
    assert all(shown.startswith("runs; ") for row in running for shown in row)
    assert "0.698873" in table.caption


def test_a_server_that_stops_is_told(tmp_path):
    kept = json.loads((PAPER_RESULTS / "forensics.json").read_text())
    found = kept["releases"][0]["arrangements"]["dp-alone-default"]
    found |= {"rounds_changed": 1, "raised": {"exception": "ValueError", "message": "why"}}
    (tmp_path / "forensics.json").write_text(json.dumps(kept))
    row = next(row for row in table_of(tmp_path).rows if "default workflow" in row["what"])
    assert row["1.13.1"] == "server: ValueError why\n1 of 2 rounds change the model"


def test_the_answer_says_what_was_executed_and_the_history(tmp_path):
    def sure():
        return answer(Sources.of(tmp_path), []).sure

    assert any("install compute it and throw it away when executed [flwr];" in f.text
               for f in sure())  # fmt: skip
    history = load_claims().history
    assert "2024-11-17" in history
    assert "without secure aggregation" in history
    assert history in [finding.text for finding in sure()]
    shutil.copy(PAPER_RESULTS / "forensics.json", tmp_path)
    told = next(finding.text for finding in sure() if finding.lead == "Very likely:")
    kept = json.loads((PAPER_RESULTS / "forensics.json").read_text())
    added = kept["releases"][1]["modifier"]["deviation"]
    shown = f"(`repro forensics`, Table 8: of σ = 0.699, 0 by 1.13.1, {added:.3g} by 1.14.0)"
    assert shown in told
