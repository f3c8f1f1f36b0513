"""Numbers of records that stay a hospital's own."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from repro.accounting import RDPAccountant, gaussian_epsilon
from repro.cli import main
from repro.errors import InputError
from repro.federated.deploy import counts
from repro.federated.deploy.counts import check_records, slots, slots_event
from repro.federated.deploy.hospital import Participant
from repro.federated.deploy.plan import write_offer
from repro.federated.deploy.training import Training
from repro.federated.protocol import Place
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from repro.secagg.deploy.keystore import load_identity
from tests.federated.deploy.trial import Trial

NOISE = 2.0


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    return Trial(
        tmp_path_factory.mktemp("counts"), "shared-dpsgd-eps6", count_noise=NOISE, rounds=1
    )


def test_slots_are_records_nine_deviations_and_noise():
    """600 numbers: mean and variance within 5 standard errors (false alarm 1e-6), none below."""
    drawn = np.array([slots(900, 10.0, RootSeed.from_user(one)) for one in range(600)])
    excess = drawn - 900 - 90 - 0.5  # rounded up: half a record more
    assert abs(excess.mean()) < 5 * 10 / math.sqrt(600)
    assert abs(excess.var() / 100 - 1) < 5 * math.sqrt(2 / 600)
    assert drawn.min() > 900


def test_never_fewer_slots_than_records(monkeypatch):
    """However improbable the noise."""
    monkeypatch.setattr(counts, "_ABOVE", -9)
    assert slots(900, 10.0, RootSeed.from_user(1)) == 900


@pytest.mark.parametrize("deviation", [0.1, 1.0, 10.0, 300.0])
def test_what_a_number_costs_is_the_gaussian_mechanism_of_sensitivity_one(deviation):
    accountant = RDPAccountant()
    accountant.compose(slots_event(deviation))
    exact = gaussian_epsilon(deviation, 1.0, 1, 1e-5)
    assert exact <= accountant.epsilon(1e-5)[0]
    assert slots_event(deviation).noise_multiplier == pytest.approx(deviation, rel=1e-9)


def test_the_ledger_has_the_number_in_every_view(trial):
    """μ of Gaussian releases adds up in squares, and so it has to come out for whole batches."""
    part = Participant(trial.plan, trial.policy, trial.folder / "l", trial.file(0), 0, "cpu")
    begun = part.kept.ledger(part.training)
    event = slots_event(NOISE)
    for hospital, spent in begun.spent.items():
        (one,) = spent
        assert (one.event, one.count, one.seen) == (event, 1, ()), hospital
    expected = gaussian_epsilon(NOISE, 1.0, 1, begun.terms.delta)
    rows = [r for r in begun.as_records() if (r["unit"], r["relation"]) == ("record", "add_remove")]
    assert len(rows) == 4
    for row in rows:
        assert row["epsilon_total"] == pytest.approx(expected, rel=1e-3)
    assert trial.plan.epsilon > 6.0


def test_a_plan_says_no_exact_number(trial):
    """A record more or less at a hospital, with the same noisy number told: the same plan, the same
    room, and a part of the same length."""
    plan = trial.plan
    assert json.loads((trial.folder / "plan.json").read_text())["sizes"] == "private"
    assert plan.stated["data"]["weights"] == "the number of training records, private"
    with np.load(trial.file(0)) as arrays:
        np.savez(trial.folder / "less.npz", **{name: arrays[name][1:] for name in arrays})
        records = len(arrays["train_labels"])
    assert records < plan.weights[0] <= records + 18 * NOISE + 1
    stated, parts = [], []
    for name in (trial.file(0), trial.folder / "less.npz"):
        mine = Participant(plan, trial.policy, trial.folder / name.stem, name, 0, "cpu")
        stated.append(mine.training.stated())
        part = mine.training.contribution(mine.training.initial, mine.data, Place(1))
        parts.append((part.vector.shape, part.weight))
        noise_keys.clear()  # two hospitals in two worlds
    assert stated[0] == stated[1] == plan.stated
    assert parts[0] == parts[1]


def test_a_training_goes_by_slots(trial):
    """Three hospitals over TLS: the bits of the same protocol with slots as weights."""
    training = Training(trial.plan, device="cpu")
    own = {one: training.hospital_data(trial.file(one), one) for one in range(3)}
    expected, _ = training.protocol.run_round(training.initial, own, 1)
    noise_keys.clear()  # the federation's processes are others
    np.testing.assert_array_equal(trial.as_threads(), expected.numpy())


@pytest.mark.parametrize(
    ("records", "told", "deviation", "fits"),
    [
        (900, 900, 0.0, True),
        (899, 900, 0.0, False),
        (900, 990, 10.0, True),
        (990, 990, 10.0, True),
        (991, 990, 10.0, False),
        (810, 990, 10.0, True),
        (809, 990, 10.0, False),
    ],
)
def test_files_that_the_plan_does_not_speak_of(records, told, deviation, fits):
    if fits:
        check_records(0, records, told, deviation)
    else:
        with pytest.raises(InputError, match="training records"):
            check_records(0, records, told, deviation)


@pytest.mark.parametrize("deviation", [-1.0, 0.01, math.nan, math.inf, 2.0**25])
def test_noise_that_is_none(trial, tmp_path, deviation):
    key = load_identity(trial.folder / "0.key")
    with pytest.raises(InputError, match="count_noise"):
        write_offer(tmp_path / "offer", key, trial.file(0), "bloodmnist", deviation)
    assert not list(tmp_path.iterdir())


def test_no_second_number_is_told_in_an_offer_s_place(trial):
    path = trial.folder / "0.offer"
    told = path.read_bytes()
    with pytest.raises(InputError, match="use that again"):
        write_offer(path, load_identity(trial.folder / "0.key"), trial.file(0), "bloodmnist", NOISE)
    assert path.read_bytes() == told


@pytest.mark.parametrize("others", ["exact", "of other noise"])
def test_offers_have_to_agree(trial, tmp_path, capsys, others):
    arm, *words = map(str, trial.plan_words)
    words[words.index("private")] = "public" if others == "exact" else "private"
    if others == "of other noise":
        key = load_identity(trial.folder / "2.key")
        write_offer(tmp_path / "2.offer", key, trial.file(2), "bloodmnist", 3.0)
        words[words.index(str(trial.folder / "2.offer"))] = str(tmp_path / "2.offer")
    assert main(["federation", "plan", arm, str(tmp_path / "p.json"), *words]) == 2
    assert ("sizes" if others == "exact" else "same noise") in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()
