"""Tables: what stands in them, and that all four renderings say the same."""

import csv
import dataclasses
import io
import json
import re
import shutil

import pytest

from repro.report.answer import answer
from repro.report.evidence import cut_short
from repro.report.items import TABLES, draw, find
from repro.report.sources import Sources
from repro.report.table import NOT_RUN, Column, Table, comma_separated, markdown
from repro.runs import RunStore
from repro.runs.arms import ARMS
from repro.runs.profiles import PROFILES
from tests.report import fake


def rows_of(out, name):
    return json.loads((out / "tables" / f"{name}.json").read_text())["rows"]


def test_table_1_puts_the_claims_beside_every_reading(drawn):
    rows = {(r["configuration"], r["hospitals"]): r for r in rows_of(drawn, "table1")}
    both = rows["DP+ / SecAgg+", "10"]
    assert both["paper"] == "97.78 [2nd]"
    assert both["run"].startswith("93.95 ± 0.40")
    assert both["documented"].startswith("19.50 ± 0.40")
    assert "best" in both["hospital"]
    assert "n = 3" in both["record"]
    missing_row = rows["DP+ / SecAgg−", "20"]
    assert missing_row["paper"] == "not in the paper"
    assert missing_row["record"].startswith("65.1")
    assert "not comparable" in rows["PriMIA (quoted)", "10"]["paper"]
    assert ("PriMIA (quoted)", "20") not in rows


def test_table_1b_has_every_arm_with_its_ledger(drawn):
    rows = {(r["arm"], r["hospitals"]): r for r in rows_of(drawn, "table1-arms")}
    assert set(rows) == {(arm, k) for arm in ARMS for k in ("10", "20")}
    record = rows["dpsgd-eps6", "10"]["record"].split("\n")
    assert record == ["1.2 / 6 (add/remove)", "1.5 / 7.8 (replace)"]
    assert rows["dpsgd-eps6", "10"]["hospital"] == "∞"
    assert rows["fedavg", "10"]["record"] == "∞"
    documented = rows["documented-secagg", "10"]["hospital"].split("\n")
    assert documented == [
        "84.9 / 2,759 (add/remove, each update seen)",
        "271 / 10,535 (replace, each update seen)",
        "15.6 / 329 (add/remove, only the sum seen)",
    ]


def test_missing_runs_are_said_never_guessed(tmp_path):
    fake.store(tmp_path, ["fedavg"])
    draw(find("table", "1"), Sources.of(tmp_path))
    rows = {(r["arm"], r["hospitals"]): r for r in rows_of(tmp_path, "table1-arms")}
    assert rows["clip-secagg", "10"]["last"] == "not run"
    assert rows["clip-secagg", "10"]["hospital"] == "not run"
    assert rows["fedavg", "10"]["last"] != "not run"
    cells = {(r["configuration"], r["hospitals"]): r for r in rows_of(tmp_path, "table1")}
    assert cells["DP+ / SecAgg+", "20"]["documented"] == "not run"


def test_a_private_arm_without_a_ledger_is_not_called_private(tmp_path):
    import dataclasses

    store = fake.store(tmp_path, [])
    store.save(dataclasses.replace(fake.record("dpsgd-eps6", 10, 0), privacy=[]))
    draw(find("table", "1"), Sources.of(tmp_path))
    rows = {(r["arm"], r["hospitals"]): r for r in rows_of(tmp_path, "table1-arms")}
    assert rows["dpsgd-eps6", "10"]["record"] == "∞ (not stated)"


@pytest.mark.parametrize("item", TABLES, ids=lambda item: item.name)
def test_every_table_carries_its_caption_in_every_format(drawn, item, sources):
    for table in item.build(sources):
        for ending in ("md", "csv", "json", "html"):
            text = (drawn / "tables" / f"{table.name}.{ending}").read_text()
            if ending == "html":
                text = re.sub("</?code>", "`", text).replace("&#39;", "'")
            assert table.caption in text or json.dumps(table.caption)[1:-1] in text
    assert "FAKE" in (drawn / "tables" / "table1.md").read_text()


def test_renderings_keep_odd_characters_apart():
    table = Table(
        name="odd",
        title="odd <title>",
        columns=[Column("a", "a|b"), Column("b", "<i>", number=True)],
        rows=[{"a": 'x|"y",\nz', "b": "<script>"}, {"a": NOT_RUN, "b": "`2 & 3`"}],
        caption="c & d",
    )
    assert "x\\|" in markdown(table)
    assert len({line.count(" | ") for line in markdown(table).split("\n")[2:6:2]}) == 1
    parsed = list(csv.reader(io.StringIO(comma_separated(table))))
    assert parsed[1] == ['x|"y",; z', "<script>"]
    fragment = table.__html__()
    assert fragment.count("<i>") == fragment.count("<script>") == 0
    assert "x|&#34;y&#34;,<br>z</td>" in fragment
    assert '<span class="missing">not run</span>' in fragment
    assert "<code>2 &amp; 3</code>" in fragment


def test_table_3_counts_bytes_per_hospital_and_parameter(drawn):
    row = rows_of(drawn, "table3")[0]
    assert row["per_parameter"] == "4"
    assert row["up"] == f"{(1840 + 9260 + 1840 + 3290) / 10 / 1000 + 4 * 75.432:.4g}"
    assert float(row["seconds"]) == pytest.approx(0.5 / PROFILES["quick"].rounds)


def test_benchmarks_come_from_their_side_files(tmp_path):
    (tmp_path / "bench").mkdir()
    row = {"name": "ours", "metric": "step time", "unit": "s", "median": 0.5, "p20": 0.4}
    row |= {"p80": 0.6, "repeats": 5, "relative": 1.25, "note": "", "detail": {}}
    bench = {"name": "dpsgd", "rows": [row], "environment": {"cpu": "a cpu", "torch": None}}
    (tmp_path / "bench" / "dpsgd.json").write_text(json.dumps(bench))
    draw(find("table", "4"), Sources.of(tmp_path))
    assert rows_of(tmp_path, "table4")[0]["relative"] == "1.25"
    assert "a cpu" in (tmp_path / "tables" / "table4.md").read_text()
    assert rows_of(tmp_path, "table4-kernels")[0]["state"] == "not run"


def test_table_7_shows_another_profile_beside_the_evidence(tmp_path):
    """Runs of ``overnight`` beside ``quick`` ones, in the same store or in a folder of its own."""
    for place in (tmp_path / "one", tmp_path / "two" / "overnight"):
        fake.store(place, ["fedavg", "shared-dpsgd-eps6"], profile="overnight")
    for out in (tmp_path / "one", tmp_path / "two"):
        fake.store(out, ["fedavg"])
        sources = Sources.of(out, profile="quick")
        (table,) = find("table", "7").build(sources)
        fedavg, secagg, *_, shared = table.rows
        assert fedavg["k10"] == "94.95 ± 0.40"
        assert fedavg["epsilon"] == "∞"
        assert secagg["k10"] == secagg["k20"] == "not run"
        assert "(record)" in shared["epsilon"]
        assert "Profile: overnight, 150 rounds" in table.caption
        before = sources.digest
        fake.store(out / "overnight" if out.name == "two" else out, ["clip-secagg"], "overnight")
        assert Sources.of(out, profile="quick").digest != before
    (empty,) = find("table", "7").build(Sources.of(tmp_path / "three"))
    assert empty.rows[0]["state"] == "not run"


def test_table_7_ends_with_the_papers_own_width_as_far_as_it_got(tmp_path):
    """Of each arm and seed the longest run; the row names its length; the caption sets it apart."""
    for place in (tmp_path / "one", tmp_path / "two" / "paper"):
        for rounds in (2, 7):
            RunStore(place).save(fake.record("fedavg", 10, 0, "paper", rounds=rounds))
        RunStore(place).save(fake.record("clip-secagg", 10, 0, "paper", rounds=8))
        RunStore(place).save(fake.record("fedavg", 10, 0, "paper", "rebuilt", rounds=9))
        RunStore(place).save(fake.record("fedavg", 5, 1, "paper", rounds=3))  # no column for it
    for out in (tmp_path / "one", tmp_path / "two"):
        fake.store(out, ["fedavg"])
        fake.store(out, ["fedavg"], profile="overnight")
        sources = Sources.of(out, profile="quick")
        (table,) = find("table", "7").build(sources)
        *night, clipped, wide = table.rows
        assert clipped["what"] == "“DP+” as most likely run, width 64, 8 of 50 rounds"
        assert wide == {
            "what": "FedAvg, no privacy, width 64, 7 of 50 rounds",
            "epsilon": "∞",
            "k10": "94.55",
            "k20": "not run",
        }
        assert len(night) == 5
        assert "(profile paper), cut short, seed 0; it trained less" in table.caption
        before = sources.digest
        place = out / "paper" if out.name == "two" else out
        RunStore(place).save(fake.record("fedavg", 10, 0, "paper", rounds=11))
        assert Sources.of(out, profile="quick").digest != before
        RunStore(place).save(fake.record("fedavg", 10, 0, "paper"))  # a whole one takes its place
        (table,) = find("table", "7").build(Sources.of(out, profile="quick"))
        assert [row["what"] for row in table.rows[5:]] == [clipped["what"]]


def test_runs_cut_short_are_the_matrix_own_but_for_their_length():
    run = fake.record("fedavg", 10, 0, "paper", rounds=7)
    extended = dataclasses.replace(run, rounds=9)  # by ``--extend``: its settings still say 7
    other = dict(run.settings, local=dict(run.settings["local"], batch_size=8))

    def found(*records):
        return cut_short(records, "paper", "fake-synthetic")

    assert found(run) == [run]
    assert found(run, extended) == found(extended, run) == [extended]
    assert found(dataclasses.replace(run, settings=other)) == []
    assert found(dataclasses.replace(run, seed=None)) == []
    assert found(fake.record("fedavg", 10, 0, "paper")) == []  # a whole run is no part
    assert found(fake.record("fedavg", 10, 0, "quick", rounds=7)) == []


def test_a_nights_training_is_told_where_it_was_run(tmp_path):
    """Both arms trained equally long, so their difference may be told; without them no word."""
    fake.store(tmp_path, ["fedavg"])
    leads = [finding.lead for finding in answer(Sources.of(tmp_path, profile="quick"), []).found]
    assert not [lead for lead in leads if "night" in lead]
    fake.store(tmp_path, ["fedavg", "shared-dpsgd-eps6"], profile="overnight")
    told = answer(Sources.of(tmp_path, profile="quick"), []).found[-1]
    assert told.lead.startswith("After a night's training")
    assert "94.95 ± 0.40" in told.text
    assert "66.97 ± 0.40 / 66.17 ± 0.40 % at ε = 6 for a record" in told.text
    assert "(10 / 20 hospitals, seeds 0, 1, 2; Table 7)" in told.text
    for seed in (1, 2):
        run = fake.record("shared-dpsgd-eps6", 20, seed, "overnight")
        shutil.rmtree(RunStore(tmp_path).folder(run.run_id))
    told = answer(Sources.of(tmp_path, profile="quick"), []).found[-1]
    assert "(10 / 20 hospitals, seeds 0, 1, 2 / 0; Table 7)" in told.text
