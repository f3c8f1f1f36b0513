"""``repro partition``: the contract's keys, the paper's sizes, one line for every mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest

from repro.cli import main
from tests.cli.commands import refused
from tests.data.files import save, small_arrays


def test_json_holds_the_authors_sizes_and_every_label_once(capsys):
    assert main(["partition", "--hospitals", "10", "--data", "synthetic", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["sizes"] == [1093, 1298, 761, 1631, 926, 1466, 1090, 1302, 1125, 1267]
    assert result["train_sizes"] == [874, 1038, 608, 1304, 740, 1172, 872, 1041, 900, 1013]
    labels = np.array(result["labels"])
    assert labels.shape == (10, 8)
    assert labels.sum(axis=1).tolist() == result["sizes"]
    assert labels.sum(axis=0).tolist() == [852, 2181, 1085, 2026, 849, 993, 2330, 1643]
    assert result["dataset"]["official"] is False
    assert {"name", "source", "md5"} <= set(result["dataset"])
    assert printed.err == ""


@pytest.mark.parametrize("scheme", ["authors", "iid", "dirichlet", "zipf"])
def test_table_names_the_data(scheme, tmp_path, capsys):
    path = save(tmp_path / "b.npz", small_arrays())
    assert main(["partition", "--hospitals", "3", "--scheme", scheme, "--data", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["hospital", "images", "train"]
    assert lines[4].split()[:2] == ["all", "24"]
    assert "not the official BloodMNIST" in lines[-1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--hospitals", "0"], "hospitals"),
        (["--hospitals", "99999"], "hospitals"),
        (["--hospitals", "ten"], "--hospitals"),
        ([], "--hospitals"),
        (["--hospitals", "3", "--seed", "-1"], "seed"),
        (["--hospitals", "3", "--seed", "1.5"], "--seed"),
        (["--hospitals", "3", "--scheme", "fair"], "--scheme"),
        (["--hospitals", "3", "--scheme", "dirichlet", "--alpha", "0"], "alpha"),
        (["--hospitals", "3", "--scheme", "zipf", "--exponent", "nan"], "exponent"),
        (["--hospitals", "3", "--dataset", "chestmnist"], "ChestMNIST"),
        (["--hospitals", "3", "--dataset", "nodulemnist3d"], "NoduleMNIST3D"),
        (["--hospitals", "3", "--dataset", "../etc"], "dataset"),
        (["--hospitals", "3", "--data", "/nonexistent.npz"], "data"),
    ],
)
def test_mistake_is_one_line_and_exit_2(words, named, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if "--data" not in words:
        words = [*words, "--data", "synthetic"]
    assert named in refused(capsys, "partition", *words)
    assert list(tmp_path.iterdir()) == []
