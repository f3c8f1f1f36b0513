"""What is measured of released Flower and of our code, without either a network or Flower."""

import ast
import json
import logging
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import repro
from repro.errors import InputError
from repro.forensics import environments, ours, record
from repro.forensics.plan import ARRANGEMENTS, RUNNABLE, Settings
from repro.report.claims import load_claims
from tests.forensics import fake

SMALL = Settings(shapes=((20, 30), (400,)), draws=50)


@pytest.fixture(scope="module")
def inside():
    """The script as a module of its own; Flower is only imported by what is not called here."""
    return SimpleNamespace(**runpy.run_path(str(environments.INSIDE), run_name="inside"))


def test_the_script_stands_alone_and_is_alone_with_flower():
    """It imports nothing of the package, and no module of the package imports it or Flower."""
    names = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(environments.INSIDE.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert "flwr" in names
    assert not any(name.startswith("repro") for name in names)
    for path in Path(repro.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "forensics.inside" not in text, path
        if "forensics" in path.parts and path != environments.INSIDE:
            assert "flwr import" not in text, path
            assert "import flwr" not in text, path


def test_the_documented_noise_is_the_claims():
    wanted = record.documented(Settings())
    assert wanted["update"] == pytest.approx(load_claims().get("epsilon")["sigma"], abs=5e-7)
    assert wanted["mean"] == pytest.approx(wanted["update"] / 2)


def test_noise_is_measured_between_draws_and_nothing_else_is():
    """σ of 99·10⁴ Gaussian values, within 5 standard errors: false alarm 6e-7 (seed fixed)."""
    settings = Settings()
    update = settings.updates()[0].astype(float)
    random = np.random.default_rng(7)
    noisy = update + 0.5 * random.standard_normal((settings.draws, settings.size))
    found = record.of_draws(noisy)
    assert found["values"] == 990_000
    assert abs(found["deviation"] - 0.5) < 5 * 0.5 / (2 * found["values"]) ** 0.5
    assert not found["all_equal"]
    same = record.of_draws(np.tile(update, (3, 1)))
    assert (same["deviation"], same["all_equal"]) == (0.0, True)
    assert same["norm"] == pytest.approx(settings.norm, rel=1e-6)


def test_rounds_are_counted_by_what_they_change():
    clipped = (SMALL.updates().astype(float) / 2).mean(axis=0)  # norm 14, clipped at 7
    still = record.of_models(np.zeros((3, SMALL.size)), SMALL)
    assert still == {"rounds_changed": 0, "deviation": None}
    once = record.of_models(np.stack([0 * clipped, clipped, clipped]), SMALL)
    assert once["rounds_changed"] == 1
    assert once["deviation"] < 1e-8
    off = record.of_models(np.stack([0 * clipped, clipped + 0.25]), SMALL)
    assert off["deviation"] == pytest.approx(0.25, rel=1e-6)


def test_failures_alike_are_one_line():
    told = [fake.KEY_ERROR | {"round": r, "hospital": h} for r in (1, 2) for h in (1, 2, 3)]
    told.append(told[0] | {"stage": "unmask"})
    first, second = record.of_failures(told)
    assert first == fake.KEY_ERROR | {"messages": 6, "rounds": [1, 2]}
    assert (second["stage"], second["messages"], second["rounds"]) == ("unmask", 1, [1])
    assert record.of_failures([]) == []


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("noise", [True, False])
def test_our_own_code_runs_both_ways(noise, secure):
    """σ/√4 on the mean: 2000 values, 5 standard errors (false alarm 6e-7, seed fixed)."""
    found = record.of_models(ours.models(SMALL, noise=noise, secure=secure), SMALL)
    assert found["rounds_changed"] == 2
    wanted = record.documented(SMALL)["mean"]
    if noise:
        assert abs(found["deviation"] - wanted) < 5 * wanted / (2 * 2000) ** 0.5
    else:
        assert found["deviation"] < (1e-4 if secure else 1e-7)  # quantisation; float32


def test_our_modifier_adds_what_it_says():
    """49,000 values, 5 standard errors (false alarm 6e-7, seed fixed)."""
    found = record.of_draws(ours.draws(SMALL, noise=True))
    assert abs(found["deviation"] - fake.SIGMA) < 5 * fake.SIGMA / (2 * 49_000) ** 0.5
    plain = record.of_draws(ours.draws(SMALL, noise=False))
    assert plain["all_equal"]
    assert plain["norm"] == pytest.approx(SMALL.clip_norm, rel=1e-6)


def test_updates_are_fixed_long_and_of_the_models_size(inside):
    updates = Settings().updates()
    assert updates.shape == (4, 10_000)
    assert np.array_equal(updates, Settings().updates())
    assert np.linalg.norm(updates, axis=1) == pytest.approx([14.0] * 4, rel=1e-6)
    parts = inside.arrays(updates[0], Settings().shapes)
    assert [part.shape for part in parts] == list(Settings().shapes)
    assert np.array_equal(inside.vector(parts), updates[0].astype(float))


def test_the_log_of_a_modifier_is_read(inside):
    log = inside.Log()
    assert log.said_deviation() is None
    logger = logging.getLogger("flwr")
    logger.info("clipped by value: %.4f.", 7.0)
    logger.info("noise with %.4f added", 0.25)
    logger.error("too few")
    logger.error("too few")
    logger.removeHandler(log)
    assert log.said_deviation() == 0.25
    assert log.errors() == ["too few"]


def test_a_failure_names_the_modifier_it_passed_last(inside, tmp_path):
    """As in Flower: client/mod/NAME.py raises from a helper elsewhere."""
    (tmp_path / "mod").mkdir()
    helper, mod = tmp_path / "helper.py", tmp_path / "mod" / "some_mod.py"
    helper.write_text("def look(records):\n    return records['wanted']\n")
    mod.write_text("def handle(look):\n    return look({})\n")
    look = runpy.run_path(str(helper))["look"]
    metadata = SimpleNamespace(group_id="2", dst_node_id=3, message_type="train")
    records = {"any name": {"stage": "setup"}}
    message = SimpleNamespace(metadata=metadata, content=SimpleNamespace(configs_records=records))
    assert inside.stage_of(message) == "setup"
    with pytest.raises(KeyError) as raised:
        runpy.run_path(str(mod))["handle"](look)
    found = inside.failure(raised.value, message, "setup")
    assert found["where"] == "some_mod.handle"
    assert (found["round"], found["hospital"], found["message"]) == (2, 3, "'wanted'")
    records["any name"] = {}
    assert inside.stage_of(message) == "train"
    with pytest.raises(KeyError) as raised:
        look({})
    assert inside.failure(raised.value, message, "fit")["where"] == "outside every modifier"


def test_an_answer_of_an_environment_is_measured(tmp_path):
    fake.environments(tmp_path / "kept")
    found = {}
    for release in ("1.13.1", "1.14.0"):
        work = tmp_path / release
        work.mkdir()
        answer = environments.ask(release, SMALL, tmp_path / "kept", work, lambda _: None)
        found[release] = record.of_release(answer, SMALL)
    assert found["1.13.1"]["modifier"]["all_equal"]
    assert found["1.14.0"]["modifier"]["deviation"] == pytest.approx(fake.SIGMA, rel=0.02)
    for release in found.values():
        assert list(release["arrangements"]) == [one.name for one in ARRANGEMENTS]
        changed = {name: one["rounds_changed"] for name, one in release["arrangements"].items()}
        assert changed == {
            "dp-alone-secure": 0, "dp-outermost-secure": 0, "dp-alone-default": 2, RUNNABLE: 2
        }  # fmt: skip


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'ImportError: no such thing' >&2; exit 1", "ImportError: no such thing"),
        ("exit 0", "status 0"),  # no answer is left
    ],
)
def test_an_environment_that_does_not_work_is_one_line(tmp_path, script, said):
    fake.environments(tmp_path / "kept", script=script)
    (tmp_path / "work").mkdir()
    with pytest.raises(InputError) as refused:
        environments.ask("1.13.1", SMALL, tmp_path / "kept", tmp_path / "work", lambda _: None)
    assert said in str(refused.value)
    assert "delete" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path):
    mine = tmp_path / "flwr-1.13.1" / "thesis.tex"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(InputError, match="keep: got"):
        environments.ask("1.13.1", SMALL, tmp_path, tmp_path, lambda _: None)
    assert mine.read_text() == "mine"


def test_the_record_holds_the_settings_that_are_asked_today():
    """The committed record: noise discarded, then added; the wrong orders fail in both."""
    from repro.report.claims import PAPER_RESULTS

    text = (PAPER_RESULTS / "forensics.json").read_text()
    assert "/tmp" not in text
    assert "/home" not in text
    kept = json.loads(text)
    question = json.loads(json.dumps(Settings().question()))
    assert kept["settings"] == {k: v for k, v in question.items() if k != "arrangements"}
    before, after = kept["releases"]
    assert (before["release"], before["modifier"]["deviation"]) == ("1.13.1", 0.0)
    assert before["modifier"]["said_deviation"] == pytest.approx(fake.SIGMA, abs=1e-6)
    off = after["modifier"]["deviation"] - fake.SIGMA
    assert abs(off) < 5 * fake.SIGMA / (2 * after["modifier"]["values"]) ** 0.5
    for release in kept["releases"]:
        assert release["fewest_hospitals"] == kept["settings"]["hospitals"]
        for one in ARRANGEMENTS:
            found = release["arrangements"][one.name]
            fails = one.secure and one.mods[0] == "local-dp"
            assert found["rounds_changed"] == (0 if fails else 2)
            assert [f["exception"] for f in found["failures"]] == ["KeyError"] * fails
