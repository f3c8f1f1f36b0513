"""Table 6 in short: a row a mechanism, the nearest arm, and whatever went wrong stands out."""

import json

import pytest

from repro.report.answer_table import answer_table
from repro.report.items.table1_accuracy import audited
from repro.report.items.table6_audit import audit_summary
from repro.report.sources import Sources
from repro.runs.arms import ARMS
from tests.report import fake

HONEST = ("dpsgd-eps1", "dpsgd-eps6", "scattering-shared-eps6", "scattering-newton-eps6")


def found(arm, control=None, gaussian=4.0, exceeded=False):
    many = {"epsilon": 1.5, "gaussian_epsilon": gaussian, "claimed_epsilon": 6.0}
    return {
        "arm": arm,
        "control": control,
        "many_run": many,
        "one_run": {"epsilon": 0.5, "independent_epsilon": 1.0},
        "epsilon_stated": 6.0,
        "epsilon_lower": 0.75,
        "confidence": 0.95,
        "exceeded": exceeded,
        "dataset": fake.dataset(),
        "profile": "quick",
        "hospitals": 10,
        "plan": {"trials": 1000, "canaries": 20000},
        "seed": 0,
    }


@pytest.fixture
def sources(tmp_path):
    fake.store(tmp_path, ["fedavg"])
    (tmp_path / "audit").mkdir()
    records = [found(arm, gaussian=3.0 + (arm == "dpsgd-eps6")) for arm in HONEST]
    records += [found("dpsgd-eps6", "halved", 9.0, True), found("dpsgd-eps6", "unclipped", 2.0)]
    for one in records:
        name = one["arm"] + (f"-{one['control']}" if one["control"] else "")
        (tmp_path / "audit" / f"{name}.json").write_text(json.dumps(one))
    return Sources.of(tmp_path)


def test_a_row_for_every_mechanism_that_was_audited(sources):
    rows = audit_summary(sources).rows
    assert [row["kind"].split(",")[0] for row in rows] == ["DP-SGD", "DP-SGD", "second-order steps"]
    assert rows[0]["arms"] == f"2 of {sum(a.trainer == 'dpsgd' for a in ARMS.values())}"
    assert rows[0]["found"] == "dpsgd-eps6: 1.5 (4) of 6"
    assert [row["caught"] for row in rows] == ["1 of 2", "0 of 0", "0 of 0"]
    assert {row["refuted"] for row in rows} == {"0"}


def test_an_arm_that_is_refuted_is_counted_and_named_by_its_bound(sources):
    path = sources.out / "audit" / "dpsgd-eps1.json"
    path.write_text(json.dumps(found("dpsgd-eps1", None, 8.0, True)))
    row = audit_summary(Sources.of(sources.out)).rows[0]
    assert row["refuted"] == "1"
    assert row["found"].startswith("dpsgd-eps1: 1.5 (8)")


def test_beside_an_arm_stands_its_bound_with_the_confidence(sources):
    assert audited(sources, ARMS["dpsgd-eps6"]) == "≥ 1.5 / ≥ 0.75 (95 %)"
    assert audited(sources, ARMS["dpsgd-eps3"]) == "not audited"
    assert audited(sources, ARMS["fedavg"]) == "–"


def test_the_first_screen_has_the_bound_beside_every_private_row(tmp_path):
    """No row that promises an ε is without it, or without saying that nobody attacked."""
    fake.store(tmp_path, ["fedavg-secagg", "calibrated-secagg"])
    side = tmp_path / "audit" / "calibrated-secagg.json"
    side.parent.mkdir()
    terms = {"confidence": 0.9, "hospitals": 12}
    side.write_text(json.dumps({"epsilon_lower": 1.494} | terms))
    table = answer_table(Sources.of(tmp_path))
    rows = table.rows
    assert "what the arm promises, at 90 % confidence, 12 hospitals (Table 6)" in table.caption
    beside = {row["what"]: row["attack"] for row in rows if row["group"] == "the paper's network"}
    assert beside["no privacy: FedAvg + SecAgg"] == "–"
    assert beside["honest for a whole hospital"] == "≥ 1.5"
    assert beside["honest for a record, noise shared"] == "not run"
