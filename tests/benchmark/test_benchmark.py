"""The benchmark end to end: any MedMNIST file, one place or several hospitals, a method of one's
own; ε found again, and no cell without a number or a reason."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from repro.cli import main
from repro.federated import whitening

ROOT = Path(__file__).resolve().parents[2]


def file_of(path: Path, side: int, channels: int, classes: int, *, several: bool = False) -> Path:
    """Stripes whose direction is the first label, and noise."""
    stream = np.random.default_rng(3)
    arrays = {}
    for split, count in (("train", 16 * 40), ("val", 4), ("test", 16 * 30)):
        labels = stream.integers(0, 2 if several else classes, (count, classes if several else 1))
        waves = 120 + 80 * np.sin(2 * np.pi * 4 * np.mgrid[:side, :side] / side)
        images = waves.astype(np.uint8)[labels[:, 0] % 2][..., None]
        noise = stream.integers(0, 60, (count, side, side, channels), dtype=np.uint8)
        arrays[f"{split}_images"] = (images - 30 + noise).squeeze()
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez(path, **arrays)
    return path


def document(out: Path) -> dict:
    return json.loads((out / "benchmark.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "side", "channels", "classes"),
    [("breastmnist", 28, 1, 2), ("chestmnist_64", 64, 1, 14), ("pathmnist_224", 224, 3, 9)],
)
def test_any_flat_medmnist_file_gets_its_cells(
    name, side, channels, classes, tmp_path, monkeypatch, capsys
):
    """Grey or not, large or small, two classes or fourteen labels: trained on in one place and by
    five hospitals, with ε found again from the rounds. Twice gives the same bytes and runs none."""
    pytest.importorskip("medmnist")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(whitening, "IMAGES", 10)
    several = name.startswith("chest")
    file = file_of(tmp_path / f"{name}.npz", side, channels, classes, several=several)
    command = ["benchmark", "--data", str(file), "--arms", "random-newton", "--epsilon", "6"]
    command += ["--hospitals", "1", "5", "--seeds", "0", "--profile", "smoke", "--json"]
    assert main([*command, "--list"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 2
    assert not (tmp_path / "benchmark").exists()
    assert main(command) == 0
    found = document(tmp_path / "benchmark")
    (data,) = found["datasets"]
    assert (data["side"], data["channels"], data["classes"]) == (side, channels, classes)
    place, federation = found["cells"]
    assert (place["place"], federation["place"]) == ("one trusted place", "5 hospitals")
    for cell in found["cells"]:
        assert cell["status"] == "done", cell["reason"]
        assert cell["epsilon"] == pytest.approx(cell["epsilon_stated"], rel=1e-6)
        assert 5 < cell["epsilon"] <= 6
        assert {"accuracy", "balanced_accuracy", "worst_recall", "auc"} <= set(cell)
    # Nobody else holds a share, and no drop-out is planned for: all of the budget is used.
    assert place["epsilon"] == pytest.approx(6, rel=1e-3)
    assert place["adversary"] == "public model"
    claims = found["leaderboard"][0]["claims"]
    assert all(claim["private_accuracy"].endswith(" AUC") == several for claim in claims)
    assert set(claims[0]) == {"model", "epsilon", "delta", "private_accuracy", "dp_accountant"}
    kept = (tmp_path / "benchmark" / "benchmark.json").read_bytes()
    monkeypatch.setattr("repro.federated.parallel.campaign._execute", None)  # nothing to execute
    assert main([*command[:-1]]) == 0
    assert (tmp_path / "benchmark" / "benchmark.json").read_bytes() == kept


def example() -> str:
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    return code


def delta_of(epsilon: float, mu: float) -> float:
    """Of one Gaussian release (Balle & Wang 2018, Theorem 8)."""
    tails = norm.cdf([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu])
    return float(tails[0] - math.exp(epsilon) * tails[1])


def mu_of(epsilon: float) -> float:
    return float(brentq(lambda mu: delta_of(epsilon, mu) - 1e-5, 0.1, 5))


def test_the_documents_example_enters_and_an_overspender_does_not(tmp_path, monkeypatch):
    """The former learns the stripes within its ε; the latter takes half the noise, says so, and its
    cell says what that amounts to. Both stand beside each other on the page."""
    pytest.importorskip("medmnist")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "means.py").write_text(example(), encoding="utf-8")
    greedy = example().replace("gaussian_sigma(", "0.5 * gaussian_sigma(").replace("noisy", "bold")
    assert greedy.count("0.5 *") == 1
    (tmp_path / "bold.py").write_text(greedy, encoding="utf-8")
    file = file_of(tmp_path / "breastmnist.npz", 28, 1, 2)
    command = ["benchmark", "--data", str(file), "--method", "means.py", "bold.py"]
    command += ["--arms", "shared-dpsgd", "--epsilon", "3", "--hospitals", "1", "--seeds", "0-1"]
    assert main([*command, "--profile", "smoke"]) == 0
    found = {cell["method"]: cell for cell in document(tmp_path / "benchmark")["cells"]}
    mine, bold = found["noisy class means"], found["bold class means"]
    assert mine["status"] == "done"
    assert mine["epsilon"] == pytest.approx(3, rel=1e-6)
    assert mine["seeds"] == [0, 1]
    assert mine["accuracy"]["mean"] > 0.95
    assert bold["status"] == "not run"
    (said,) = re.findall(r"got 'ε = (\S+)'; expected at most the 3 asked for", bold["reason"])
    assert delta_of(float(said), 2 * mu_of(3)) == pytest.approx(1e-5, rel=1e-3)
    assert found["shared-dpsgd"]["reason"] == "there is no arm of it at ε = 3"
    page = (tmp_path / "benchmark" / "benchmark.md").read_text(encoding="utf-8")
    assert "nobody here checked its code" in page
    assert "bloodmnist" in page.partition("Not run: no file here")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arms", "fedavg"], "arms: got 'fedavg'; expected some of "),
        (["--seeds", "0-x"], "seeds: got"),
        (["--method", "nowhere.py"], "method: got 'nowhere.py'"),
        (["--data", "cells.npz"], "data: got 'cells.npz'; expected the set's name"),
        (["--record", "nowhere"], "record: got"),
    ],
)
def test_bad_input_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"repro benchmark: {said}")
    assert printed.err.count("\n") == 1
    assert not any(tmp_path.iterdir())
