"""The arms that nothing private tuned: their settings are what the tool on record chose."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from repro.models.random_filters import DrawnChoiceRings
from repro.runs.arm import EPSILONS
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[2]
RECORD = json.loads((ROOT / "paper_results/settings_from_drawn_images.json").read_text("utf-8"))
CHOSEN = RECORD["chosen"]


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools/settings_from_drawn_images.py"
    spec = importlib.util.spec_from_file_location("settings_from_drawn_images", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(importlib.import_module("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_arms_have_what_was_chosen(epsilon):
    arm = ARMS[f"drawn-newton-eps{epsilon:g}"]
    settings = compose(arm, PROFILES["quick"], hospitals=10, seed=0)
    assert settings.record_privacy.clip_norm == CHOSEN["clip"]
    assert settings.record_privacy.learning_rate == pytest.approx(CHOSEN["rate"][f"{epsilon:g}"])
    assert settings.rounds == CHOSEN["steps"] + 2
    shares = settings.second_order
    assert (shares.mean_share, shares.moments_share, shares.floor) == (
        CHOSEN["mean_share"],
        CHOSEN["moments_share"],
        CHOSEN["floor"],
    )
    assert [list(bank) for bank in DrawnChoiceRings.banks] == CHOSEN["banks"]
    assert list(DrawnChoiceRings.turns) == CHOSEN["turns"]
    assert DrawnChoiceRings.axes == CHOSEN["axes"]


def test_the_highest_accuracy_on_record_was_taken(tool):
    """At every stage: the first of the best, as ``max`` takes it."""
    trials = iter(RECORD["trials"])

    def best(count):
        return max((next(trials) for _ in range(count)), key=lambda trial: trial["accuracy"])

    family = best(len(tool.FAMILIES))
    assert {name: family[name] for name in ("banks", "turns", "axes")} == {
        name: CHOSEN[name] for name in ("banks", "turns", "axes")
    }
    for name, values in tool.OPTIONS.items():
        assert best(len(values))[name] == CHOSEN[name]
    for epsilon in (6, 1, 3, 8):
        found = best(len(tool.RATES))
        assert (found["epsilon"], found["rate"]) == (epsilon, CHOSEN["rate"][f"{epsilon}"])
    assert next(trials, None) is None


def test_the_tool_trains_as_the_arms_do(tool):
    """Its pooled simulation on easy classes learns them; with the budget of ε = 0.01 it cannot."""
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(8).repeat(400)
    centres = torch.randn(8, 40, generator=stream)
    records = centres[labels] + 0.7 * torch.randn(3200, 40, generator=stream)
    records = F.normalize(records, dim=1)
    setting = tool.Setting(rate=400.0)
    for epsilon, low, high in ((6.0, 0.9, 1.0), (0.01, 0.0, 0.6)):
        predicted = tool.train(records, labels, setting, epsilon, seed=0)(records)
        assert low <= (predicted == labels).float().mean() <= high


def test_one_training_is_that_of_the_page(tool, monkeypatch):
    """``examples/private_second_order.py``, which is held to the arms: the same noise, the same
    predictions; the coalition's factor is all that the tool adds."""
    page = runpy.run_path(str(ROOT / "examples/private_second_order.py"))
    monkeypatch.setattr(tool, "COALITION", 1.0)
    stream = torch.Generator().manual_seed(1)
    labels = torch.arange(8).repeat(100)
    records = torch.randn(8, 40, generator=stream)[labels]
    records = F.normalize(records + 2 * torch.randn(800, 40, generator=stream), dim=1)
    setting = tool.Setting(800.0, 0.25, page["MOMENTS"], page["MEAN"], page["CLIP"], page["STEPS"])
    mine = tool.train(records, labels, setting, 6.0, seed=3)(records)
    assert torch.equal(mine, page["train"](records, labels, 8, 6.0, 800.0, 3)(records))
    assert 0.3 < (mine == labels).float().mean() < 0.99  # neither all right nor all wrong


def test_a_small_search_takes_the_better_of_two(tool, capsys):
    search = tool.Search((101, 12), (102, 6), draws=1)
    family = {"banks": ((1, 4), (3, 4)), "turns": (0.0,), "axes": 24}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repro.federated.whitening.IMAGES", 12)
        search.use(family)
        settings = [tool.Setting(rate=0.0), tool.Setting(rate=50.0)]
        found = search.best(settings, 1e4)
    scores = [trial["accuracy"] for trial in search.trials]
    assert scores[1] > scores[0]
    assert found == settings[1]
    assert capsys.readouterr().out.count("accuracy") == 2
