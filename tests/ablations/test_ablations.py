"""Ablations: what they list, compose and draw, and that tuning never sees a test image."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from repro.ablations import NAMES, dpsgd_tuning, get_ablation
from repro.ablations.base import Ablation, Cell, base, change
from repro.ablations.measures import late_accuracy
from repro.ablations.running import run_ablation
from repro.cli import main
from repro.data import Split
from repro.errors import InputError
from repro.federated.parallel.campaign import run_all
from repro.federated.parallel.ranks import Ranks
from repro.federated.secure import SecureAggregation
from repro.randomness import RootSeed
from repro.report.ablation import draw_ablation
from repro.report.documents import ablation_sections
from repro.report.evidence import gather
from repro.report.items import table1_accuracy
from repro.report.sources import Sources
from repro.report.table import markdown
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES
from repro.runs.store import RunStore
from repro.secagg import Encoding, Field
from tests.federated.small import small_dataset, small_file
from tests.report import fake
from tests.secagg.parties import weighted_mean

SMOKE = PROFILES["smoke"]
WORD_LIMIT = 24


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_ablation_composes_distinct_runs_for_every_profile(name, profile):
    """No two variants are one run, no seed is lost, labels tell the variants of a series apart."""
    ablation = get_ablation(name)
    assert ablation.name == name
    for hospitals in profile.hospitals:
        groups = ablation.runs(profile, hospitals, (0, 1))
        runs = [settings for _, group in groups for settings in group]
        assert len(groups) >= 2
        assert len({run.run_id("data") for run in runs}) == len(runs) == 2 * len(groups)
        points = {(ablation.series(group[0]), label) for label, group in groups}
        assert len(points) == len(groups)
        assert {run.evaluate_on for run in runs} == {ablation.judged_on}
        assert all(json.dumps(run.as_dict()) for run in runs)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dpsgd-tuning"])
def test_an_ablation_holds_the_matrix_own_run_or_changes_one_thing(name):
    """Each variant differs from its arm's own settings in one part at most (or is its run), besides
    the images it is judged on."""
    ablation = get_ablation(name)
    for _, settings in ablation.variants(SMOKE, 10):
        own = compose(ARMS[settings.arm], SMOKE, hospitals=settings.hospitals, seed=0)
        own = dataclasses.replace(own, evaluate_on=ablation.judged_on)
        changed = [
            field.name
            for field in dataclasses.fields(own)
            if getattr(own, field.name) != getattr(settings, field.name)
        ]
        assert len(changed) <= 1, changed


@pytest.mark.parametrize("name", NAMES)
def test_every_ablation_explains_itself(name):
    said = get_ablation(name).about()
    assert set(said) == {"Command", "Cost and hardware", "Expected"}
    assert f"repro ablate {name}`" in said["Command"]
    question = get_ablation(name).question
    assert question.endswith("?")
    assert len(question.split()) <= WORD_LIMIT


def test_list_explains_every_ablation(capsys):
    assert main(["ablate", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["ablations"]
    assert [row["name"] for row in rows] == list(NAMES)
    assert all(row["question"] and row["cost"] and row["runs"] > 1 for row in rows)


@pytest.mark.parametrize("words", [["pooling"], [], ["skips", "--seeds", "one"]])
def test_bad_input_costs_one_line(words, capsys, tmp_path):
    assert main(["ablate", *words, "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def one_process(monkeypatch):
    """Runs go one by one in this process: they are too short to be worth starting others."""
    monkeypatch.setattr("repro.federated.parallel.campaign.os.cpu_count", lambda: 1)


def one_small_ablation() -> Ablation:
    """Skips, on FedAvg alone: three runs of a second each."""
    return dataclasses.replace(
        get_ablation("skips"),
        variants=lambda profile, hospitals: [
            (kind, change(base("fedavg", profile, hospitals), "model", skips=kind))
            for kind in ("none", "first", "all")
        ],
    )


def test_one_ablation_runs_draws_and_leaves_table_1_alone(tmp_path, one_process):
    """Files are whole, the matrix' own run is shared, and Table 1 shows the same as without."""
    dataset, store = small_dataset(), RunStore(tmp_path)
    own = base("fedavg", SMOKE, 3)
    run_all([own], dataset, store, device="cpu")
    before = markdown(table1_accuracy.build(_sources(tmp_path))[1])
    ablation = one_small_ablation()
    cells, conclusion = run_ablation(ablation, SMOKE, dataset, store, hospitals=3, device="cpu")
    paths = draw_ablation(ablation, SMOKE, cells, conclusion, tmp_path)

    times = [path.stat().st_mtime_ns for path in paths]
    assert draw_ablation(ablation, SMOKE, cells, conclusion, tmp_path) == paths
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert {path.suffix for path in paths} == {".md", ".csv", ".json", ".html", ".svg", ".png"}
    assert all(path.parent == tmp_path / "ablations" and path.stat().st_size for path in paths)
    assert len(store.all()) == 3  # "first" is the run that was there
    table = json.loads((tmp_path / "ablations" / "skips.json").read_text())
    assert [row["variant"] for row in table["rows"]] == ["none", "first", "all"]
    assert "synthetic stand-in" in table["caption"]
    parameters = [variant["parameters"] for variant in table["data"]["variants"]]
    assert parameters[0] == parameters[1] < parameters[2]

    page = ablation_sections(_sources(tmp_path))
    section = page.split("### Ablation skips")[1].split("###")[0]
    assert "`OUT/ablations/skips.md`, `OUT/ablations/skips.svg`" in section
    for cell, row in zip(cells, table["rows"], strict=True):
        assert f"{cell.label}: {row['last']}" in section
    assert "synthetic stand-in" in page.split("### ")[0]  # what is common is said once

    assert [record.run_id for record in gather(store.all(), "smoke").records] == [
        own.run_id(dataset.fingerprint)
    ]
    assert markdown(table1_accuracy.build(_sources(tmp_path))[1]) == before


def test_all_runs_each_ablation_and_repeats_nothing(tmp_path, one_process, monkeypatch, capsys):
    """One command, told again, leaves every file as it was; the report shows both ablations."""
    small = {
        "skips": one_small_ablation(),
        "downsampling": dataclasses.replace(one_small_ablation(), name="downsampling"),
    }
    monkeypatch.setattr("repro.cli.ablate.NAMES", tuple(small))
    monkeypatch.setattr("repro.cli.ablate.get_ablation", small.get)
    words = ["ablate", "all", "--profile", "smoke", "--data", str(small_file(tmp_path))]
    words += ["--device", "cpu", "--hospitals", "3", "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    told = capsys.readouterr()
    data = json.loads(told.out)
    assert [one["name"] for one in data["ablations"]] == list(small)
    assert len(data["paths"]) == 12
    assert "ablations:" in told.err  # the progress bar over them
    files = [path for path in tmp_path.rglob("*.*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in files if path.name != "lock"}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(RunStore(tmp_path).all()) == 3


def _sources(out) -> Sources:
    return Sources.of(out, profile="smoke")


def test_tuning_reads_validation_images_not_test_images(tmp_path, one_process, no_last_look):
    """Other test images, even nonsense, leave every number and the choice of the tuning alone;
    other training images change the first variant's, so the comparison could fail."""
    honest = small_dataset()
    flipped = dataclasses.replace(
        honest, test=Split(255 - honest.test.images, (honest.test.labels + 1) % 4)
    )
    disturbed = dataclasses.replace(
        honest, train=Split(255 - honest.train.images, (honest.train.labels + 1) % 4)
    )
    found = _tune(honest, RunStore(tmp_path / "honest"))
    assert len(found["confusions"]) == 2
    assert found == _tune(flipped, RunStore(tmp_path / "test"))
    first = _tune(disturbed, RunStore(tmp_path / "train"), variants=1)
    assert found["confusions"][0] != first["confusions"][0]


def _tune(dataset, store, variants=2):
    """Two hospitals and one round: each tries its engine first, most of a run's time."""
    ablation = dataclasses.replace(
        get_ablation("dpsgd-tuning"),
        variants=lambda *of: dpsgd_tuning.variants(*of)[1::6][:variants],
    )
    once = dataclasses.replace(SMOKE, rounds=1)
    cells, conclusion = run_ablation(ablation, once, dataset, store, hospitals=2, device="cpu")
    assert conclusion is not None
    return {
        "chosen": conclusion.data,
        "labels": [cell.label for cell in cells],
        "confusions": [cell.records[0].confusion for cell in cells],
    }


def test_tuning_refuses_to_choose_on_test_images():
    label, settings = dpsgd_tuning.variants(SMOKE, 10)[0]
    cell = Cell(label, dataclasses.replace(settings, evaluate_on="test"), [])
    with pytest.raises(ValueError, match="validation"):
        dpsgd_tuning.choose([cell])


def test_charging_the_search_costs_more_than_one_run_and_less_than_all_added_up():
    """Composition of n runs of ε = 6 lies between 6 and 6 n; of one run it is 6 itself."""
    dataset = small_dataset()
    cells = [
        Cell(label, settings, [fake.record("dpsgd-eps6", 10, 0)])
        for label, settings in dpsgd_tuning.variants(SMOKE, 3)[:4]
    ]
    one = dpsgd_tuning.search_epsilon(cells[:1], dataset)
    four = dpsgd_tuning.search_epsilon(cells, dataset)
    assert 5.99 < one <= 6
    assert 6 < four < 24


@pytest.mark.parametrize("hospitals", [5, 10, 20, 50])
def test_the_drop_outs_of_shares_are_certain_to_be_survived(hospitals):
    """The protocol accepts every graph, loses as many as the label says, and never more than it
    has shares to spare, whoever they are."""
    for label, settings in get_ablation("shares").variants(SMOKE, hospitals):
        secagg = settings.secagg
        assert secagg is not None
        weights = dict.fromkeys(range(settings.hospitals), 8)
        aggregation = SecureAggregation(secagg, weights, RootSeed.from_user(0), Ranks())
        aggregation.start(1, weights, torch.zeros(2))
        lost = len(aggregation._lost)
        assert f"\n{lost} of {settings.hospitals} lost" in label
        assert lost <= secagg.neighbours + 1 - secagg.threshold


def test_levels_take_effect_on_the_error_and_on_nothing_else():
    """Fewer levels, a proportionally larger error bound, and the decoded mean stays within it."""
    stream = np.random.default_rng(1)
    updates = {h: stream.normal(size=64).astype(np.float32) for h in range(5)}
    weights = dict.fromkeys(updates, 10)
    exact = np.mean([update.astype(np.float64) for update in updates.values()], axis=0)
    bounds = []
    for levels in (None, 2**16, 2**8):
        encoding = Encoding(Field(31), 5, max_weight=16, levels=levels)
        _, result = weighted_mean(updates, weights, encoding=encoding)
        error = np.abs(result.mean - exact).max()
        assert error <= result.max_error_bound
        assert error > result.max_error_bound / 100  # the bound is of this quantisation
        bounds.append(result.max_error_bound)
    assert bounds[2] / bounds[1] == pytest.approx((2**16 - 1) // 2 / ((2**8 - 1) // 2))
    assert bounds[0] < bounds[1] / 1000
    with pytest.raises(InputError, match="levels"):
        Encoding(Field(31), 5, levels=2)


def test_late_accuracy_is_the_mean_of_the_last_quarter_of_the_rounds():
    """Of 20 rounds the last 5; of 2 rounds the last one."""
    for rounds, counted in ((20, 5), (2, 1)):
        history = [{"round": r, "accuracy": r / 100} for r in range(rounds + 1)]
        record = dataclasses.replace(fake.record("fedavg", 10, 0), rounds=rounds, history=history)
        cell = Cell("", base("fedavg", SMOKE, 10), [record, record])
        expected = np.mean([r / 100 for r in range(rounds + 1 - counted, rounds + 1)])
        assert late_accuracy(cell) == pytest.approx(expected)
