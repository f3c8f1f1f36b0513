"""``repro run`` and ``repro arms``: the JSON contract, and one line for every mistake."""

from dataclasses import replace
from pathlib import Path

import pytest

from repro.cli.run import describe
from repro.report.sources import Sources
from repro.runs import RunStore
from tests.cli.commands import ask, refused
from tests.report import fake

KEYS = {
    *("arm", "hospitals", "seed", "dataset", "rounds", "final_accuracy", "best_accuracy"),
    *("best_round", "privacy", "history"),
}


def test_arms_are_listed(capsys):
    arms = ask(capsys, "arms")["arms"]
    assert {"name", "description"} <= arms[0].keys()
    assert "fedavg" in [arm["name"] for arm in arms]


def test_run_keeps_the_contract(tmp_path, capsys):
    words = "run fedavg --hospitals 3 --seed 0 --profile smoke --data synthetic --rounds 1"
    record = ask(capsys, *words.split(), "--out", tmp_path, "--quiet")
    assert record.keys() >= KEYS
    assert record["dataset"].keys() >= {"name", "source", "official", "md5"}
    assert record["dataset"]["official"] is False
    assert len(record["history"]) == 2
    assert all(set(entry) >= {"round", "loss", "accuracy"} for entry in record["history"])
    (kept,) = RunStore(tmp_path).all()
    assert Sources.of(tmp_path).scores(kept) is not None  # and they give the confusion matrix


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("run fedavgg", "arm"),
        ("run fedavg --profile huge", "profile"),
        ("run fedavg --hospitals 0", "hospitals"),
        ("run fedavg --hospitals 100000 --data synthetic", "hospitals"),
        ("run fedavg --hospitals 2000 --data synthetic", "hospitals"),
        ("run fedavg-secagg --hospitals 1 --data synthetic", "hospitals"),
        ("run fedavg --hospitals ten", "--hospitals"),
        ("run fedavg --extend -1", "extend"),
        ("run fedavg --seed 1.5", "--seed"),
        ("run fedavg --seed -1", "seed"),
        ("run fedavg --rounds 0", "rounds"),
        ("run fedavg --data nowhere.npz", "nowhere.npz"),
        ("run fedavg --dataset nodulemnist3d", "nodulemnist3d"),
        ("run fedavg --device tpu", "device"),
        ("run fedavg --precision half", "precision"),
        ("run scattering-fedavg --precision bf16-mixed", "precision"),
        ("run fedavg --field-bits 61", "field-bits"),
        ("run fedavg-secagg --field-bits 32", "--field-bits"),
    ],
)
def test_mistakes_cost_one_line_and_leave_nothing(words, field, tmp_path, capsys):
    out = tmp_path / "out"
    words += " --profile smoke" * ("--profile" not in words)
    assert field in refused(capsys, *words.split(), "--out", out)
    assert not out.exists()


def test_what_is_promised_comes_first():
    lines = describe(fake.record("dpsgd-eps6", 10, 0), Path("out")).splitlines()
    assert lines[1].startswith("  promised    ε = 6 for a record; by this run's ledger ε = 6 for")
    documented = describe(fake.record("documented-secagg", 10, 0), Path("out")).splitlines()
    assert documented[1] == "  privacy     ε = 2759 for a hospital that contributes or not"
    assert "no privacy" in describe(fake.record("fedavg", 10, 0), Path("out")).splitlines()[1]


def test_an_arm_misspelt_is_guessed(capsys):
    said = refused(capsys, "run", "turned-newton-eps6al")
    assert "did you mean turned-newton-eps6-all or " in said
    assert len(said) < 200


def test_what_a_private_run_does_not_promise_is_said_with_its_epsilon():
    """The ledger's warnings once, not once a row, and that the record holds noiseless counts."""
    made = fake.record("dpsgd-eps6-secagg", 10, 0)
    rows = [dict(row, warnings=["beware of the seed"]) for row in made.privacy]
    shown = describe(replace(made, privacy=rows, diagnostics={"gradients": 7}), Path("out"))
    assert len(rows) > 1
    assert shown.count("beware of the seed") == 1
    assert "counts without noise, which no ε covers" in shown
    plain = describe(replace(fake.record("fedavg", 10, 0), diagnostics={"updates": 7}), Path("out"))
    assert "counts without noise" not in plain
