"""What a plan says, who believes it, and what a hospital does not agree to."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from repro.cli import main
from repro.errors import InputError
from repro.federated.deploy.hospital import Participant, take_part
from repro.federated.deploy.keeping import TRAININGS, Kept
from repro.federated.deploy.plan import load_plan
from repro.federated.deploy.policy import Policy
from repro.federated.protocol import Place
from repro.federated.shared import trainer
from repro.federated.shared.trainer import planned_multiplier
from repro.secagg.deploy.announcement import Announcement
from repro.secagg.deploy.counter import locked
from repro.secagg.deploy.directory import load_directory
from repro.secagg.deploy.joining import Server
from repro.secagg.deploy.keystore import load_identity
from repro.secagg.errors import Refused
from tests.federated.deploy.trial import Trial


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Its noise is private: no seed."""
    return Trial(tmp_path_factory.mktemp("plan"), "shared-dpsgd-eps6", seed=None)


AGREED = Policy(("shared-dpsgd-eps6",), 6.0)
POLICIES = {
    "another arm": ({"arms": ("fedavg-secagg",)}, "by the policy"),
    "a smaller ε": ({"largest_epsilon": 5.9}, "ε for a record"),
    "more hospitals": ({"minimum_hospitals": 4}, "least number of hospitals"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_checked_before_anything_else(trial, tmp_path, name):
    """Nothing is written, no record is read, no connection made."""
    changed, says = POLICIES[name]
    with pytest.raises(InputError, match=says):
        Participant(trial.plan, replace(AGREED, **changed), tmp_path / "s", tmp_path / "no.npz", 0)
    assert not (tmp_path / "s").exists()


def test_noise_of_a_public_seed_is_no_noise(trial):
    plan = replace(trial.plan, seed=0)
    with pytest.raises(InputError, match="seed"):
        AGREED.check(plan)
    replace(AGREED, public_seed=True).check(plan)


def test_epsilons_of_several_plans_add_up(trial, tmp_path):
    """An earlier plan counts from its first shared part on, with all that it may spend."""
    earlier = replace(trial.plan, model_seed=trial.plan.model_seed ^ 1)
    kept = Kept(tmp_path, earlier)
    seed = kept.seed()
    assert seed.private
    part = Participant(trial.plan, AGREED, tmp_path, trial.file(0), 0, "cpu")
    assert part.training.seed.root != seed.root  # no noise in common
    kept.share(part.training, 0, Place(1))
    with pytest.raises(InputError, match="after 6 for earlier plans"):
        Participant(trial.plan, AGREED, tmp_path, trial.file(0), 0, "cpu")
    twice = replace(AGREED, largest_epsilon=12.0)
    Participant(trial.plan, twice, tmp_path, trial.file(0), 0, "cpu")


def test_what_was_shared_is_not_shared_again(trial, tmp_path):
    """Marked and charged on the disk before the part leaves; from then on, after a crash too, the
    hospital makes no part of that exchange or an earlier one, at the same model or another."""

    def announced(part, at, model):
        return Announcement.of(1, b"s" * 32, b"d" * 32, part.training.announced(at, model))

    def started():
        return Participant(trial.plan, AGREED, tmp_path, trial.file(0), 0, "cpu")

    part = started()
    model = part.training.initial
    second = announced(part, Place(1, 1), model)
    first = part.prepare(second).vector
    again = started().prepare(second).vector  # nothing was shared, so nothing is lost
    np.testing.assert_array_equal(first, again)
    file = next((tmp_path / "trainings").glob("*.json"))
    assert json.loads(file.read_text())["ledger"] is None
    part.leaving(second)
    found = json.loads(file.read_text())
    assert (found["shared"], file.stat().st_mode & 0o777) == ([1, 1], 0o600)
    back = started()
    (spent,) = back.kept.ledger(back.training).spent[0].items()
    assert spent[1] == 1
    for one in (part, back):
        for at in (Place(1, 0), Place(1, 1)):
            for change in (0.0, 1.0):
                with pytest.raises(Refused, match="no noise lies under two sums"):
                    one.prepare(announced(one, at, model + change))
        with pytest.raises(Refused, match="no noise lies under two sums"):
            one.leaving(second)
    back.prepare(announced(back, Place(1, 2), model))
    file.write_text("{")
    with pytest.raises(InputError, match="new plan"):
        started()


def test_a_round_is_bound_to_plan_exchange_and_model(trial, tmp_path):
    """Who holds another one shares no mask with the others, so no stale update gets into a sum."""
    training = Participant(trial.plan, AGREED, tmp_path, trial.file(0), 0, "cpu").training
    directory = load_directory(trial.folder / "directory.json", trial.operator)

    def parts(at, change=0.0):
        return training.round_of(
            directory, 1, training.announced(at, training.initial + change)
        ).parts

    def differ(other):
        mine = parts(Place(1, 0))
        return {name for name in mine if mine[name] != other[name]}

    assert differ(parts(Place(1, 0))) == set()
    assert differ(parts(Place(1, 0), 1e-6)) == {"model"}
    assert differ(parts(Place(1, 1))) == {"application"}
    for at in (Place(0, 0), Place(1, 3), Place(3, 0)):
        with pytest.raises(Refused, match="does not have"):
            parts(at)
    stranger = training.announced(Place(1), training.initial).replace(trial.plan.digest, b"p" * 32)
    with pytest.raises(Refused, match="another plan"):
        training.read(stranger)


def test_processors_that_differ_in_a_last_digit_share_masks(trial, tmp_path, monkeypatch):
    """The noise worked out a little off: within what a plan's check allows, and one round."""

    def round_parts(name):
        mine = Participant(trial.plan, AGREED, tmp_path / name, trial.file(0), 0, "cpu").training
        directory = load_directory(trial.folder / "directory.json", trial.operator)
        announced = mine.announced(Place(1), mine.initial)
        return mine.round_of(directory, 1, announced).parts, mine.protocol.sum_in(1).plan

    parts, plan = round_parts("here")
    monkeypatch.setattr(
        trainer, "planned_multiplier", lambda *given: planned_multiplier(*given) * (1 + 1e-14)
    )
    theirs, other = round_parts("there")
    assert plan.granularity != other.granularity
    assert parts == theirs


def test_a_plan_that_understates_what_is_spent_is_not_taken(trial, tmp_path):
    """Signed by the operator all the same: a hospital works every number out itself."""
    stated = json.loads(json.dumps(trial.plan.stated))
    row = next(r for r in stated["privacy"] if r["view"].startswith("coalition"))
    row["epsilon_at_most"] = 1.0
    lying = replace(trial.plan, stated=stated)
    operator = load_identity(trial.folder / "operator.key")
    lying.write(tmp_path / "plan.json", operator)
    loaded = load_plan(tmp_path / "plan.json", operator.public)
    with pytest.raises(InputError, match="epsilon_at_most"):
        Participant(loaded, AGREED, tmp_path, trial.file(0), 0, "cpu")


def test_a_plan_is_its_operator_s_and_unchanged(trial, tmp_path):
    content = json.loads((trial.folder / "plan.json").read_text())
    changed = tmp_path / "plan.json"
    changed.write_text(json.dumps({**content, "rounds": 3}))
    with pytest.raises(InputError, match="signature"):
        load_plan(changed, trial.operator)
    with pytest.raises(InputError, match="operator"):
        load_plan(trial.folder / "plan.json", b"o" * 32)
    assert load_plan(trial.folder / "plan.json", trial.operator) == trial.plan


@pytest.mark.parametrize(
    ("more", "says"), [(["--sizes", "private"], "sizes"), (["--least", "2"], "least")]
)
def test_plans_that_are_not_made(trial, tmp_path, capsys, more, says):
    arm, *words = trial.plan_words
    status = main(["federation", "plan", arm, str(tmp_path / "p.json"), *map(str, words), *more])
    assert status == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_arms_that_cannot_be_trained_apart_are_refused(trial):
    arms = ("fedavg", "clip-secagg", "dpsgd-eps6-secagg", "searched-newton-eps6", "turned-newton")
    for arm in arms:
        with pytest.raises(InputError, match="arm"):
            replace(trial.plan, arm=arm, rounds=14)


def test_records_have_to_be_as_many_as_were_offered(trial, tmp_path):
    """They are the weight, and the noise rests on them."""
    with np.load(trial.file(0)) as arrays:
        np.savez(tmp_path / "less.npz", **{name: arrays[name][1:] for name in arrays})
    with pytest.raises(InputError, match="training records"):
        Participant(trial.plan, AGREED, tmp_path, tmp_path / "less.npz", 0, "cpu")


def test_a_second_process_does_not_read_what_the_first_has_shared(trial):
    """It could write that down again when the first has shared more."""
    files = trial.files(1)
    with locked(files.state / TRAININGS), pytest.raises(InputError, match="no other process"):
        take_part(trial.plan, files, Server("127.0.0.1", 1), trial.file(1), AGREED, device="cpu")
    assert not list((files.state / TRAININGS).glob("*.json"))
