"""Second-order training: every round against an oracle with the same noise, or with none for the
twin without privacy; its budget, its run."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.accounting import ComposedEvent, gaussian_epsilon
from repro.errors import InputError
from repro.federated import whitening
from repro.federated.assembly import round_protocol
from repro.federated.features import LabelledFeatures
from repro.federated.parallel.ranks import Ranks
from repro.federated.shared import second_order
from repro.federated.shared.exact import ExactSecondOrderTrainer, ExactSum
from repro.federated.shared.second_order import SecondOrderTrainer
from repro.federated.shared.sum import PrivateSum
from repro.federated.training.plain import HospitalData
from repro.federated.vector import load_vector, to_vector
from repro.models.whitened import WhitenedLinear
from repro.privacy.noise_key import noise_keys
from repro.randomness import RootSeed
from repro.runs.arms import ARMS
from repro.runs.composition import compose
from repro.runs.profiles import PROFILES
from repro.runs.settings import RecordPrivacy, SecAggParameters, SecondOrder, SharedNoise
from tests.federated.small import run, small_dataset, small_settings, stated

SEED = RootSeed.from_user(5)
SIZES = {0: 40, 1: 25, 2: 60, 3: 31, 4: 44}
FEATURES, CLASSES, ROUNDS = 6, 3, 5
PRIVACY = RecordPrivacy(
    epsilon=6.0, delta=1e-5, clip_norm=0.25, learning_rate=20.0, optimizer="sgd"
)


def hospitals(*, several: bool = False) -> dict[int, HospitalData]:
    """Features of very unequal scale and a mean, some longer than 1. several: labels a record."""
    stream = np.random.default_rng(0)
    scale = np.geomspace(0.4, 0.05, FEATURES)
    made = {}
    for one, size in SIZES.items():
        values = 0.3 + stream.normal(size=(size, FEATURES)) * scale
        labels = stream.integers(0, 2, (size, CLASSES)) if several else None
        labels = stream.integers(0, CLASSES, size) if labels is None else labels
        made[one] = HospitalData(one, LabelledFeatures.of(values, labels, "cpu"))
    return made


def trainer(rounds=ROUNDS, second=None, secagg=None, model=None) -> SecondOrderTrainer:
    given = PRIVACY, second or SecondOrder(), SharedNoise(), secagg or SecAggParameters(), SIZES
    model = model or WhitenedLinear(FEATURES, CLASSES)
    return SecondOrderTrainer(*given, model, rounds=rounds, seed=SEED)


def exact_trainer() -> ExactSecondOrderTrainer:
    """The twin without privacy of ``trainer``."""
    given = PRIVACY, SecondOrder(), SharedNoise(), SIZES, WhitenedLinear(FEATURES, CLASSES)
    return ExactSecondOrderTrainer(*given, rounds=ROUNDS, seed=SEED)


def run_round(made: SecondOrderTrainer, model: WhitenedLinear, data, number: int):
    """The round's report; ``model`` is the next global model afterwards."""
    vector, report = made.run_round(to_vector(model), data, number)
    load_vector(model, vector)
    return report


def noise(sum_, round_number: int) -> np.ndarray:
    """The shares that went into a round's sum, in its units."""
    if isinstance(sum_, ExactSum):
        return np.zeros(sum_.plan.dimension)
    shares = [sum_.noise(one, round=round_number, step=0) for one in SIZES]
    return np.sum(shares, axis=0) * sum_.plan.granularity


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("made_by", [trainer, exact_trainer])
def test_every_round_is_the_pooled_computation_with_the_same_noise(made_by, several):
    """Records one at a time in float64, autograd for the gradients; only the noise is shared.

    The twin has none, and the floor τ of the private arm. several: labels a record, each against
    the rest, by the gradient's formula; what is clipped is the record's, of all labels together.
    """
    made, model = made_by(), WhitenedLinear(FEATURES, CLASSES)
    exact = made_by is exact_trainer
    data = hospitals(several=several)
    records = torch.cat([data[one].train.images for one in SIZES]).double()
    labels = torch.cat([data[one].train.labels for one in SIZES])
    count = len(records)

    run_round(made, model, data, 1)
    short = [x / max(1.0, float(x.norm())) for x in records]
    expected = (sum(short).numpy() + noise(made._sums[1], 1)) / count
    np.testing.assert_allclose(model.mean.double(), expected, atol=1e-7 if exact else 1e-4)

    run_round(made, model, data, 2)
    units = [(x - model.mean.double()) for x in records]
    units = [u / u.norm() for u in units]
    moments = sum(torch.outer(u, u) for u in units).numpy()
    drawn, place = noise(made._sums[2], 2), 0
    for i in range(FEATURES):
        for j in range(i, FEATURES):
            moments[i, j] += drawn[place] / (1 if i == j else math.sqrt(2))
            moments[j, i] = moments[i, j]
            place += 1
    plan = trainer()._sums[2].plan
    floor = 0.5 * plan.share_deviation * math.sqrt(len(SIZES)) * math.sqrt(2 * FEATURES)
    values, vectors = np.linalg.eigh(moments)
    root = vectors @ np.diag(np.sqrt(floor / np.maximum(values, floor))) @ vectors.T
    np.testing.assert_allclose(model.transform.double(), root, atol=1e-6 if exact else 1e-3)
    assert values.max() > 2 * floor  # so that it did something

    inputs = [model.transform.double() @ u for u in units]
    inputs = [v / v.norm() for v in inputs]
    weight = torch.zeros(CLASSES, FEATURES, dtype=torch.float64, requires_grad=True)
    for round_number in range(3, ROUNDS + 1):
        total = torch.zeros_like(weight)
        for v, label in zip(inputs, labels, strict=True):
            if several:
                gradient = torch.outer((weight @ v).sigmoid() - label, v).detach()
            else:
                loss = F.cross_entropy((weight @ v)[None], label[None])
                (gradient,) = torch.autograd.grad(loss, weight)
            total += gradient * min(1.0, PRIVACY.clip_norm / float(gradient.norm()))
        total += torch.from_numpy(noise(made._steps.sum, round_number)).view_as(total)
        with torch.no_grad():
            weight -= PRIVACY.learning_rate * total / count
        run_round(made, model, data, round_number)
        np.testing.assert_allclose(
            model.linear.weight.detach(), weight.detach(), atol=2e-5 if exact else 2e-3
        )


def test_one_record_adds_at_most_length_one():
    """Also where the model's own normalisation goes wrong: the sum's clipping is what bounds it."""
    stream = np.random.default_rng(1)
    model = WhitenedLinear(FEATURES, CLASSES)
    model.mean.copy_(torch.from_numpy(stream.normal(size=FEATURES)))
    for size in (1e-3, 1.0, 1e3):
        for _ in range(20):
            record = HospitalData(
                0, LabelledFeatures.of(stream.normal(size=(1, FEATURES)) * size, np.zeros(1), "cpu")
            )
            for statistic in (second_order._sum_of_vectors, second_order._sum_of_products):
                assert np.linalg.norm(statistic(model, record)) <= 1 + 1e-9

    class Longer(WhitenedLinear):
        def centred(self, x):
            return 3 * super().centred(x)

    record = hospitals()[0]
    longer, count = Longer(FEATURES, CLASSES), len(record.train)
    products = second_order._sum_of_products(longer, record)
    assert np.linalg.norm(products) <= count * (1 + 1e-9)
    exact = second_order._sum_of_products(WhitenedLinear(FEATURES, CLASSES), record)
    np.testing.assert_allclose(products, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("second", [SecondOrder(), SecondOrder(0.3, 0.4)])
def test_all_rounds_together_cost_epsilon_and_no_less(second):
    """Against the planned coalition after the planned drop-outs, by exact composition."""
    made = trainer(second=second)
    precision = sum(1 / one.plan.event(one.plan.shares).noise_multiplier ** 2
                    for one in made._sums.values())  # fmt: skip
    steps = made._steps.plan
    precision += (ROUNDS - 2) / steps.event(steps.shares).noise_multiplier ** 2
    epsilon = gaussian_epsilon(1 / math.sqrt(precision), 1.0, 1, PRIVACY.delta)
    assert PRIVACY.epsilon * (1 - 1e-6) < epsilon <= PRIVACY.epsilon


def test_without_second_moments_the_steps_get_their_round_and_share():
    """The transform stays the identity, the second round is a step, and ε is met as exactly."""
    made, model = trainer(second=SecondOrder(moments_share=0.0)), WhitenedLinear(FEATURES, CLASSES)
    data = hospitals()
    run_round(made, model, data, 1)
    assert model.mean.abs().max() > 0
    run_round(made, model, data, 2)
    assert torch.equal(model.transform, torch.eye(FEATURES))
    assert model.linear.weight.abs().max() > 0
    (mean,) = made._sums.values()
    counted = [(mean.plan, 1), (made._steps.plan, ROUNDS - 1)]
    precision = sum(
        count / plan.event(plan.shares).noise_multiplier ** 2 for plan, count in counted
    )
    epsilon = gaussian_epsilon(1 / math.sqrt(precision), 1.0, 1, PRIVACY.delta)
    assert PRIVACY.epsilon * (1 - 1e-6) < epsilon <= PRIVACY.epsilon


def test_a_trainer_that_begins_anew_goes_on_with_the_same_bits():
    data = hospitals()
    whole, model = trainer(), WhitenedLinear(FEATURES, CLASSES)
    for number in range(1, ROUNDS + 1):
        run_round(whole, model, data, number)
    first, again = trainer(), WhitenedLinear(FEATURES, CLASSES)
    for number in range(1, 4):
        run_round(first, again, data, number)
    second = trainer()
    second.load_state_dict(first.state_dict())
    for number in range(4, ROUNDS + 1):
        run_round(second, again, data, number)
    assert torch.equal(model.linear.weight, again.linear.weight)


def test_more_lost_than_planned_is_no_release_and_changes_nothing():
    made, model = trainer(secagg=SecAggParameters(drop_rate=0.5)), WhitenedLinear(FEATURES, CLASSES)
    for number in range(1, ROUNDS + 1):
        report = run_round(made, model, hospitals(), number)
        assert report.facts["secagg"]["failed_steps"] == 1
        assert {event for _, event, _ in report.spent} == {ComposedEvent([])}
    assert model.mean.abs().max() == 0
    assert torch.equal(model.transform, torch.eye(FEATURES))


def test_every_sum_is_bound_to_all_of_the_model_that_it_was_computed_at(monkeypatch):
    """A hospital that was told another mean or transform shares no mask with the others."""
    bound, add_up = [], PrivateSum.add_up

    def noting(self, shares, **names):
        bound.append(names["model"])
        return add_up(self, shares, **names)

    monkeypatch.setattr(PrivateSum, "add_up", noting)
    changes = {
        1: lambda model: model.mean.add_(1e-3),
        2: lambda model: model.mean.add_(1e-3),
        3: lambda model: model.transform.mul_(1.001),
        4: lambda model: model.mean.add_(1e-3),
        5: lambda model: model.linear.weight.data.add_(1e-3),
    }
    seen = []
    for told in (None, *changes):
        bound.clear()
        noise_keys.clear()  # several worlds
        made, model = trainer(), WhitenedLinear(FEATURES, CLASSES)
        for number in range(1, ROUNDS + 1):
            if number == told:
                changes[number](model)
            run_round(made, model, hospitals(), number)
        seen.append(list(bound))
    honest, *others = seen
    assert len(set(honest)) == ROUNDS
    for number, other in zip(changes, others, strict=True):
        assert other[: number - 1] == honest[: number - 1]
        assert other[number - 1] != honest[number - 1]


def test_too_few_rounds_or_another_model_is_refused():
    with pytest.raises(InputError, match="rounds"):
        trainer(rounds=2)
    with pytest.raises(InputError, match="moments_share"):
        SecondOrder(0.5, 0.5)
    with pytest.raises(InputError, match="model"):
        trainer(model=nn.Linear(FEATURES, CLASSES))


@pytest.mark.parametrize("arm", ["scattering-newton-eps6", "random-newton-eps6"])
def test_a_run_is_private_and_learns(arm, tmp_path, monkeypatch):
    monkeypatch.setattr(whitening, "IMAGES", 8)
    dataset = small_dataset()
    settings = small_settings(arm, rounds=4)
    record = run(settings, dataset, tmp_path)
    assert record.final_accuracy > 0.4  # of four classes, at ε = 6 for 128 images
    found = {view.split()[0]: epsilon for view, epsilon in stated(record).items()}
    # None is lost, so one share more than planned is in the sum; a coalition knows one.
    assert 4.5 < found["coalition"] < 6
    assert found["server"] < found["coalition"]
    assert found["server"] == found["public"]


def test_without_a_secure_sum_noise_is_shared_with_nobody():
    """One place alone needs none, and adds all of the noise; of five each would show its own."""
    alone = compose(ARMS["random-newton-eps6"], PROFILES["smoke"], hospitals=1, seed=0)
    assert (alone.secagg, alone.shared.colluders, alone.shared.drop_outs) == (None, 0, 0)
    model = WhitenedLinear(FEATURES, CLASSES)
    made = round_protocol(alone, {0: 200}, model, SEED, Ranks())
    multipliers = [one.plan.multiplier(1) for one in (*made._sums.values(), made._steps.sum)]
    times = [1, 1, alone.rounds - 2]
    mu = math.sqrt(sum(n / z**2 for n, z in zip(times, multipliers, strict=True)))
    assert gaussian_epsilon(1 / mu, 1.0, 1, alone.record_privacy.delta) == pytest.approx(
        6, rel=1e-6
    )
    for weights, shared in (
        (dict.fromkeys(range(5), 40), alone.shared),
        ({0: 200}, SharedNoise(precision="double")),
    ):
        with pytest.raises(InputError, match="secagg"):
            round_protocol(replace(alone, shared=shared), weights, model, SEED, Ranks())
