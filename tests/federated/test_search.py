"""A private search: the best trial's model and nothing else, its ε recomputed by other means."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple
from unittest import mock

import mpmath as mp
import numpy as np
import pytest
import torch
from torch import nn

from repro.accounting import (
    BestOfTrialsEvent,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    RDPAccountant,
    event_from_dict,
    gaussian_epsilon,
    number_of_trials,
    trial_multiplier,
)
from repro.accounting.ledger import FederatedLedger
from repro.accounting.random_stopping import gamma_of
from repro.errors import InputError
from repro.federated import whitening
from repro.federated.features import LabelledFeatures
from repro.federated.shared.search import SearchTrainer
from repro.federated.training.plain import HospitalData
from repro.federated.vector import load_vector, to_vector
from repro.models.whitened import WhitenedLinear
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from repro.runs.search_settings import SearchSettings
from repro.runs.settings import RecordPrivacy, SecAggParameters, SecondOrder, SharedNoise
from tests.accounting.test_search_cost import probabilities
from tests.federated.small import run as run_of
from tests.federated.small import small_dataset, small_settings, stated

SIZES = {one: 30 + 7 * one for one in range(5)}
HELD_OUT = dict.fromkeys(SIZES, 20)
FEATURES, CLASSES = 6, 3
PRIVACY = RecordPrivacy(epsilon=6.0, delta=1e-5, optimizer="sgd")
SEARCH = SearchSettings(rounds=4)
SEED = 6


def oracle_epsilon(mu: float, mean: float, eta: float, delta: float) -> float:
    """Papernot & Steinke's Theorem 2 and Canonne et al.'s Proposition 12 for a Gaussian trial,
    whose best λ̂ is known in closed form, √(2 log(1/γ))/μ; minimised on two grids, 30 digits."""
    with mp.workdps(30):
        mu, delta = mp.mpf(mu), mp.mpf(delta)
        gamma = mp.findroot(
            lambda g: (
                ((1 / g - 1) / mp.log(1 / g) if eta == 0 else eta * (1 - g) / (g * (1 - g**eta)))
                - mean
            ),
            (mp.mpf("1e-3"), mp.mpf("0.5")),
            solver="anderson",
        )
        hat = max(mp.sqrt(2 * mp.log(1 / gamma)) / mu, mp.mpf("1.0000001"))
        extra = (1 + eta) * ((1 - 1 / hat) * hat * mu**2 / 2 + mp.log(1 / gamma) / hat)

        def epsilon(order):
            rdp = order * mu**2 / 2 + extra + mp.log(mean) / (order - 1)
            return rdp + mp.log(1 - 1 / order) - (mp.log(delta) + mp.log(order)) / (order - 1)

        best = min((1 + mp.mpf(k) / 10 for k in range(5, 300)), key=epsilon)
        return float(min(epsilon(best + mp.mpf(k) / 1000) for k in range(-100, 101)))


def trainer(
    seed: int = SEED, *, private=False, secagg=None, held_out=HELD_OUT, model=None
) -> SearchTrainer:
    root = RootSeed.from_user(seed)
    if private:
        root = RootSeed(root.root, "operating system entropy")
    secagg, model = secagg or SecAggParameters(), model or WhitenedLinear(FEATURES, CLASSES)
    given = PRIVACY, SEARCH, SecondOrder(), SharedNoise(), secagg, SIZES, model, held_out
    return SearchTrainer(*given, seed=root)


def hospitals() -> dict[int, HospitalData]:
    """Three classes, each with a mean of its own."""
    stream = np.random.default_rng(0)
    middles = stream.normal(size=(CLASSES, FEATURES))

    def some(count):
        labels = stream.integers(0, CLASSES, count)
        values = 0.3 * middles[labels] + 0.1 * stream.normal(size=(count, FEATURES))
        return LabelledFeatures.of(values, labels, "cpu")

    return {one: HospitalData(one, some(size), some(20)) for one, size in SIZES.items()}


def drawn(seed: int) -> int:
    """N of the search with that seed."""
    stream = RootSeed.from_user(seed).numpy_generator("search")
    return number_of_trials(SEARCH.eta, SEARCH.trials, float(stream.random()))


def run(seed: int, **more):
    noise_keys.clear()
    made, model = trainer(seed, **more), WhitenedLinear(FEATURES, CLASSES)
    vector, report = made.run_round(to_vector(model), hospitals(), 1)
    load_vector(model, vector)
    return made, model, report


class Scored(NamedTuple):
    score: float
    right: int  # of the held-out images, counted here
    weight: torch.Tensor


@pytest.fixture(scope="module")
def searched():
    """A search of two trials: trainer, model, report, and every trial's score."""
    seen: list[Scored] = []
    score = SearchTrainer._score

    def noting(self, vector, held, seed):
        found, model = score(self, vector, held, seed), WhitenedLinear(FEATURES, CLASSES)
        load_vector(model, vector)
        right = sum(
            int((model(one.held_out.inputs()).argmax(1) == one.held_out.labels).sum())
            for one in held.values()
        )
        seen.append(Scored(found, right, model.linear.weight.detach().clone()))
        return found

    with mock.patch.object(SearchTrainer, "_score", noting):
        return (*run(SEED), seen)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("mean", [2.0, 5.0, 10.0])
def test_a_trial_gets_all_that_the_theorem_leaves_it(mean, eta):
    multiplier = trial_multiplier(6.0, 1e-5, mean, eta)
    assert 6 * (1 - 1e-4) < oracle_epsilon(1 / multiplier, mean, eta, 1e-5) <= 6 * (1 + 1e-6)
    assert gaussian_epsilon(multiplier, 1.0, 1, 1e-5) < 6  # of a trial alone: it pays for choosing


def test_what_the_ledger_states_is_the_theorems_epsilon_of_the_noise_that_was_added(searched):
    """Once for the planned coalition's shares, which is the target, and once as the ledger has it:
    nobody colludes with who gets the model, so there is a little more noise. Insiders: composed."""
    made, _, report, scores = searched
    trials = len(scores)
    one = made._trainer(SEARCH.candidates[-1], made.seed)

    def mu(shares):
        plans = [(made.plan, 1), *((plan, 1) for plan in one.statistics_plans)]
        plans.append((one.steps_plan, 2))
        return math.sqrt(sum(count / plan.multiplier(shares) ** 2 for plan, count in plans))

    planned = made.plan.shares
    assert planned == 3
    assert 6 * (1 - 1e-4) < oracle_epsilon(mu(planned), 5.0, 0.0, 1e-5) <= 6
    ledger = FederatedLedger(unit="record", mechanism="search", delta=1e-5, hospital_sizes=SIZES,
                             views=views())  # fmt: skip
    ledger.spend_round(report.spent, weights=SIZES, seen=report.seen)
    told = {
        row["view"]: row["epsilon_total"]
        for row in ledger.as_records()
        if (row["unit"], row["relation"]) == ("record", "add_remove")
    }
    model, server, coalition = (told[name] for name in ("model", "server", "coalition"))
    assert model == pytest.approx(oracle_epsilon(mu(5), 5.0, 0.0, 1e-5), rel=1e-4)
    assert server == pytest.approx(gaussian_epsilon(1 / mu(5), 1.0, trials, 1e-5), rel=1e-6)
    assert coalition == pytest.approx(gaussian_epsilon(1 / mu(4), 1.0, trials, 1e-5), rel=1e-6)


def views():
    from repro.accounting.ledger import View

    return [View(key, key) for key in ("broken", "coalition", "server", "model")]


def test_the_best_score_wins_and_only_its_model_is_left(searched):
    """Scores are those of the trials' models on held-out images, to within the noise."""
    made, model, report, scores = searched
    assert len(scores) == report.facts["secagg"]["trials"] == drawn(SEED) == 2
    deviation = made.plan.share_deviation * math.sqrt(len(SIZES))
    for one in scores:  # 7 deviations: 3e-12 a score
        assert abs(one.score - one.right) < 7 * deviation
    winner = max(scores, key=lambda one: one.score)
    kept = [torch.equal(model.linear.weight, one.weight) for one in scores]
    assert kept == [one is winner for one in scores]


def test_the_number_of_trials_has_the_distribution_of_the_theorem():
    """χ² of 4,000 draws over N = 1 … 9 and the rest, against the definition's products.

    9 degrees of freedom: 45 is exceeded by chance once in a million (fixed seed).
    """
    for eta, mean in ((0.0, 5.0), (1.0, 3.0), (-0.5, 4.0)):
        stream = np.random.default_rng(3)
        drawn = [number_of_trials(eta, mean, float(u)) for u in stream.random(4_000)]
        chance = [float(p) for p in probabilities(eta, gamma_of(eta, mean), 9)]
        chance.append(1 - sum(chance))
        counts = np.bincount(np.minimum(drawn, 10), minlength=11)[1:]
        expected = 4_000 * np.array(chance)
        assert ((counts - expected) ** 2 / expected).sum() < 45


def test_a_number_of_trials_that_was_not_drawn_has_no_epsilon():
    trial = GaussianEvent(1.2)
    fixed = BestOfTrialsEvent(trial, 5, None)
    with pytest.raises(InputError, match="drawn at random"):
        RDPAccountant().compose(fixed)
    ledger = FederatedLedger(
        unit="record", mechanism="search", delta=1e-5, hospital_sizes={0: 9}, views=views()
    )
    with pytest.raises(InputError, match="drawn at random"):
        ledger.spend(0, fixed)
    for bad in ({"trials": 1.0}, {"eta": -1.0}, {"eta": math.nan}):
        with pytest.raises(InputError):
            replace(SEARCH, **bad)


def test_the_event_is_its_own_after_json_and_keeps_to_what_its_trial_is_proved_for():
    event = BestOfTrialsEvent(PoissonSampledGaussianEvent(1.1, 0.1), 4.0, 0.0)
    assert event_from_dict(event.as_dict()) == event
    assert set(event.proved_for()) == {"add_remove", "zero_out"}
    assert event.scaled(2.0).trial.noise_multiplier == pytest.approx(2.2)
    with pytest.raises(InputError, match="unit"):
        BestOfTrialsEvent(GaussianEvent(1.0, unit="hospital"), 4.0, 0.0)


def test_a_private_search_does_not_tell_how_many_trials_there_were():
    one, two = (next(seed for seed in range(99) if drawn(seed) == n) for n in (1, 2))
    reports = [run(seed, private=True)[2] for seed in (one, two)]
    assert len({repr(report.spent) for report in reports}) == 1
    for report in reports:
        assert set(report.facts["secagg"]) == {"plan", "chosen", "survivors"}
        assert not report.seconds
        assert not report.diagnostics


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(InputError, match="drop_rate"):
        trainer(secagg=SecAggParameters(drop_rate=0.2))
    with pytest.raises(InputError, match="validation_fraction"):
        trainer(held_out={})
    with pytest.raises(InputError, match="round"):
        trainer().run_round(to_vector(WhitenedLinear(FEATURES, CLASSES)), hospitals(), 2)
    with pytest.raises(InputError, match="model"):
        trainer(model=nn.Linear(FEATURES, CLASSES))
    with pytest.raises(InputError, match="one process"):
        trainer().exchanges(1)


def test_the_arm_runs_and_states_both_kinds_of_views(tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "IMAGES", 8)
    settings = small_settings("searched-newton-eps6", rounds=1, seed=SEED)
    record = run_of(settings, small_dataset(), tmp_path)
    (round_,) = record.history[1:]
    assert round_["secagg"]["trials"] == drawn(SEED) == 2
    assert set(round_["secagg"]["chosen"]) == {"clip_norm", "time", "floor"}
    found = {view.split()[0]: epsilon for view, epsilon in stated(record).items()}
    assert 4 < found["public"] < 6
    assert found["public"] < found["coalition"]
    assert record.final_accuracy > 0.3  # of four classes, the best of two
