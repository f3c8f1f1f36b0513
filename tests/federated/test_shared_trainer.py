"""Shared noise makes the federation's steps those of pooled DP-SGD, and the ledger says what each
adversary may learn."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.accounting import PLDAccountant, PoissonSampledGaussianEvent, RDPAccountant
from repro.accounting.ledger import UNPROTECTED
from repro.errors import InputError
from repro.federated.division import subset
from repro.federated.execute import assemble
from repro.federated.features import LabelledFeatures
from repro.federated.parallel.ranks import Ranks
from repro.federated.protocol import Place
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.training.plain import HospitalData
from repro.federated.vector import load_vector, to_vector
from repro.privacy.sampling import PoissonSampler
from repro.randomness import RootSeed
from repro.runs.settings import RecordPrivacy, SecAggParameters, SharedNoise
from tests.federated.small import assembled, run, small_dataset, small_settings, stated

SEED = RootSeed.from_user(3)
SIZES = {0: 40, 1: 25, 2: 60, 3: 31, 4: 44}
FEATURES, CLASSES = 12, 4
SECAGG = SecAggParameters(neighbours=4, threshold=4)


@pytest.fixture(scope="module")
def dataset():
    return small_dataset()


def hospitals() -> dict[int, HospitalData]:
    stream = np.random.default_rng(0)
    made = {}
    for one, size in SIZES.items():
        values, labels = stream.normal(size=(size, FEATURES)), stream.integers(0, CLASSES, size)
        made[one] = HospitalData(one, LabelledFeatures.of(values, labels, "cpu"))
    return made


def trainer(privacy: RecordPrivacy, epochs: float = 2.0) -> SharedNoiseTrainer:
    given = privacy, SharedNoise(precision="double"), SECAGG, SIZES, nn.Linear(FEATURES, CLASSES)
    return SharedNoiseTrainer(*given, epochs=epochs, rounds=1, seed=SEED)


def pooled(made: SharedNoiseTrainer, privacy: RecordPrivacy, model: nn.Linear) -> None:
    """Central DP-SGD on the union of the same draws, by autograd one record at a time, its noise
    the sum of the same shares: no code of the product between the records and the step."""
    data = hospitals()
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=privacy.learning_rate, momentum=privacy.momentum)
        if privacy.optimizer == "sgd"
        else torch.optim.Adam(model.parameters(), lr=privacy.learning_rate)
    )
    for step in range(made.steps):
        total = torch.zeros((FEATURES + 1) * CLASSES, dtype=torch.float64)
        for one, mine in data.items():
            sampler = PoissonSampler(SIZES[one], made.plan.sample_rate)
            for record in sampler.sample(SEED, party=one, round=1, step=step):
                model.zero_grad()
                outputs = model(mine.train.images[record].double())
                F.cross_entropy(outputs, mine.train.labels[record]).backward()
                gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
                total += gradient * min(1.0, privacy.clip_norm / float(gradient.norm()))
            noise = made.sum.noise(one, round=1, step=step) * made.plan.granularity
            total += torch.from_numpy(noise)
        total /= made.plan.sample_rate * sum(SIZES.values())
        weight, bias = total.split([FEATURES * CLASSES, CLASSES])
        model.weight.grad, model.bias.grad = weight.view(CLASSES, FEATURES).clone(), bias.clone()
        optimizer.step()


@pytest.mark.parametrize(
    ("optimizer", "rate", "momentum"), [("sgd", 0.5, 0.9), ("adam", 0.02, 0.0)]
)
def test_equal_to_pooled_dp_sgd_on_the_same_draws_up_to_rounding(optimizer, rate, momentum):
    steps = {"optimizer": optimizer, "learning_rate": rate, "momentum": momentum}
    privacy = RecordPrivacy(3.0, 1e-5, clip_norm=0.7, expected_batch=50, **steps)
    made = trainer(privacy)
    assert made.steps == 8
    torch.manual_seed(0)
    together, central = (nn.Linear(FEATURES, CLASSES) for _ in range(2))
    central.load_state_dict(together.state_dict())
    start = together.weight.detach().clone()
    load_vector(together, made.run_round(to_vector(together), hospitals(), 1)[0])
    pooled(made, privacy, central.double())
    weight = together.weight.detach()
    moved = float((weight - start).abs().max())
    difference = float((weight - central.weight.detach()).abs().max())
    assert moved > 0.1
    # Each total is within K/2 grid steps; a momentum step passes on at most ten times that.
    assert difference < 1e-5 * moved


def test_losses_within_the_plan_keep_the_target_and_beyond_it_nothing_happens(dataset, tmp_path):
    settings = small_settings("scattering-shared-eps6", hospitals=5, rounds=2)
    assert settings.shared == SharedNoise(colluders=1, drop_outs=1)

    def losing(drop_rate: float):
        lossy = replace(settings, secagg=replace(settings.secagg, drop_rate=drop_rate))
        record = run(lossy, dataset, tmp_path)
        spent = stated(record)
        return record, spent["coalition of 1 hospital with the server"], spent[UNPROTECTED]

    whole, none_lost, _ = losing(0.0)
    lossy, one_lost, _ = losing(0.2)
    broken, two_lost, seen_alone = losing(0.4)
    assert none_lost < one_lost <= 6
    assert one_lost > 0.97 * 6
    assert whole.history[-1]["secagg"]["survivors"] == 5
    assert lossy.history[-1]["secagg"]["survivors"] == 4
    assert two_lost == 0
    assert broken.secagg["failed"] == 2
    facts = broken.history[-1]["secagg"]
    assert "needed 4" in facts["failed"]
    assert facts["failed_steps"] == facts["steps"]
    losses = [entry["loss"] for entry in broken.history]
    assert losses[0] == losses[-1]
    # Masked inputs had left the others, so whoever breaks the masks sees each under one share.
    lossy = replace(settings, secagg=replace(settings.secagg, drop_rate=0.4))
    made = assembled(lossy, dataset, RootSeed.from_user(settings.seed)).protocol
    sent = Counter(
        one
        for number in (1, 2)
        for step in range(made.steps)
        for one in set(made.weights) - made.lost(Place(number, step))
    )
    event = PoissonSampledGaussianEvent(made.plan.multiplier(1), made.plan.sample_rate)
    most = max(sent.values())
    assert most < 2 * made.steps
    assert seen_alone == pytest.approx(by_hand(event, most), rel=1e-9)


def test_a_single_precision_sum_stays_within_the_error_that_the_noise_is_set_for():
    """2,000 records that all pull one way, the worst for a sum's rounding, against their clipped
    gradients one by one in float64."""
    sizes = {0: 2000, 1: 4, 2: 4, 3: 4, 4: 4}
    privacy = RecordPrivacy(epsilon=6.0, delta=1e-5, clip_norm=0.7, expected_batch=2016)
    model = nn.Linear(FEATURES, CLASSES)
    given = privacy, SharedNoise(precision="single"), SECAGG, sizes, model
    made = SharedNoiseTrainer(*given, epochs=1, rounds=1, seed=SEED)
    stream = np.random.default_rng(1)
    values = 3 + 0.01 * stream.normal(size=(2000, FEATURES))
    data = HospitalData(0, LabelledFeatures.of(values, np.zeros(2000, int), "cpu"))
    total = made.clipped(data, Place(1)).total.numpy()
    exact = np.zeros(made.plan.dimension)
    for one in range(2000):
        model.zero_grad()
        F.cross_entropy(model(data.train.images[one : one + 1]), data.train.labels[:1]).backward()
        gradient = np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])
        gradient = gradient.astype(np.float64)
        exact += gradient * min(1.0, 0.7 / np.linalg.norm(gradient))
    error = float(np.linalg.norm(total - exact))
    assert 1e-6 < error < made.plan.sum_error < 0.02 * privacy.clip_norm * 2
    assert float(np.linalg.norm(exact)) > 0.99 * 2000 * 0.7  # nothing cancelled


def test_ledger_is_the_steps_composed_by_hand(dataset, tmp_path):
    settings = small_settings("scattering-shared-eps3", hospitals=5, rounds=2)
    record = run(settings, dataset, tmp_path)
    images = record.dataset["train_images"]
    rate = min(1.0, settings.record_privacy.expected_batch / images)
    steps = sum(entry["secagg"]["steps"] for entry in record.history[1:])
    (row,) = [
        row
        for row in record.privacy
        if row["unit"] == "record" and row["view"] == "coalition of 1 hospital with the server"
    ]
    event = PoissonSampledGaussianEvent(row["noise_multiplier"], rate)
    assert row["method"] == "pld"
    assert row["epsilon_total"] == pytest.approx(by_hand(event, steps), rel=1e-9)
    assert row["steps"] == steps
    # The plan counts on 3 of 5 shares; nobody was lost, so 4 hid the records.
    planned = PoissonSampledGaussianEvent(row["noise_multiplier"] * math.sqrt(3 / 4), rate)
    assert 0.98 * 3 < by_hand(planned, steps) <= 3.001


def by_hand(event: PoissonSampledGaussianEvent, steps: int) -> float:
    """The privacy loss distribution's ε of the steps, below what RDP proves of them."""
    epsilon = PLDAccountant().compose(event, steps).epsilon(1e-5)[0]
    assert epsilon < RDPAccountant().compose(event, steps).epsilon(1e-5)[0] < 1.4 * epsilon
    return epsilon


def test_the_protocol_on_some_steps_only_is_said_and_changes_no_bit(dataset, tmp_path):
    settings = small_settings("shared-dpsgd-eps6", rounds=1)
    all_of_them = run(settings, dataset, tmp_path)
    settings = replace(settings, shared=replace(settings.shared, protocol_every=3))
    some = run(settings, dataset, tmp_path)
    facts, fewer = (record.history[-1]["secagg"] for record in (all_of_them, some))
    assert facts["protocol_steps"] == facts["steps"] > fewer["protocol_steps"] > 0
    assert fewer["protocol_steps"] == math.ceil(facts["steps"] / 3)
    assert all_of_them.final_loss == some.final_loss
    assert all_of_them.confusion == some.confusion


def test_several_ranks_are_refused_in_one_line(dataset):
    settings = small_settings("scattering-shared-eps6")
    data = subset(dataset, settings)

    class Two(Ranks):
        size = 2

    with pytest.raises(InputError, match="ranks"):
        assemble(settings, data, seed=SEED, device="cpu", ranks=Two())


def test_two_hospitals_leave_nobody_to_count_on(dataset):
    settings = small_settings("scattering-shared-eps6", hospitals=2)
    with pytest.raises(InputError, match="colluders"):
        assembled(settings, dataset, SEED)
