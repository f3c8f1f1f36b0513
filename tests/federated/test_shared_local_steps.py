"""Several steps a record, views and averages inside shared-noise training: what they compute, that
none of them changes the ledger, and that a run goes on to the same bits."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.federated.division import subset
from repro.federated.execute import assemble, execute
from repro.federated.parallel.ranks import Ranks
from repro.federated.shared.averaging import Averaging
from repro.federated.shared.trainer import SharedNoiseTrainer
from repro.federated.shared.views import SYMMETRIES, symmetric_views, symmetry
from repro.privacy.sampling import PoissonSampler
from repro.random import RootSeed
from repro.runs.settings import RecordPrivacy, SharedNoise
from repro.runs.store import RunStore
from tests.federated.small import small_dataset, small_settings
from tests.federated.test_shared_trainer import (
    CLASSES,
    FEATURES,
    SECAGG,
    SEED,
    SIZES,
    hospitals,
)

PRIVACY = RecordPrivacy(
    epsilon=3.0, delta=1e-5, clip_norm=0.7, expected_batch=50, learning_rate=0.02
)


def trainer(shared: SharedNoise, rounds: int = 1) -> SharedNoiseTrainer:
    return SharedNoiseTrainer(
        PRIVACY,
        shared,
        SECAGG,
        SIZES,
        dimension=(FEATURES + 1) * CLASSES,
        epochs=1,
        rounds=rounds,
        seed=SEED,
    )


def displacement(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int, rate: float):
    """(start − end)/rate of plain SGD on one record, flat; by autograd and an optimizer."""
    own = copy.deepcopy(model)
    optimizer = torch.optim.SGD(own.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(own(x), y).backward()
        optimizer.step()
    pairs = zip(model.parameters(), own.parameters(), strict=True)
    return torch.cat([((a - b) / rate).detach().flatten() for a, b in pairs])


def test_a_round_of_displacements_is_a_loop_over_records_with_the_same_noise():
    made = trainer(
        SharedNoise(protocol_every=100, precision="double", local_steps=3, local_rate=0.8)
    )
    data = hospitals()
    torch.manual_seed(0)
    together = nn.Linear(FEATURES, CLASSES)
    central = copy.deepcopy(together).double()
    start = together.weight.detach().clone()
    made.train_round(together, data, 1)
    optimizer = torch.optim.Adam(central.parameters(), lr=PRIVACY.learning_rate)
    for step in range(made.steps):
        total = torch.zeros((FEATURES + 1) * CLASSES, dtype=torch.float64)
        for one, mine in data.items():
            sampler = PoissonSampler(SIZES[one], made.sample_rate)
            for record in sampler.sample(SEED, hospital=one, round=1, step=step):
                moved = displacement(
                    central, mine.train.images[record].double(), mine.train.labels[record], 3, 0.8
                )
                total += moved * min(1.0, PRIVACY.clip_norm / float(moved.norm()))
            noise = made.sum.noise(one, round=1, step=step) * made.plan.granularity
            total += torch.from_numpy(noise)
        total /= made.sample_rate * sum(SIZES.values())
        weight, bias = total.split([FEATURES * CLASSES, CLASSES])
        central.weight.grad = weight.view(CLASSES, FEATURES).clone()
        central.bias.grad = bias.clone()
        optimizer.step()
    weight = together.weight.detach()
    moved = float((weight - start).abs().max())
    assert moved > 0.02
    assert float((weight - central.weight.detach()).abs().max()) < 1e-5 * moved


def test_neither_steps_nor_views_nor_averages_change_what_is_spent(tmp_path):
    dataset = small_dataset()
    own = small_settings("shared-dpsgd-eps6", rounds=1)
    assert own.shared is not None
    own = dataclasses.replace(
        own,
        local=dataclasses.replace(own.local, epochs=0.6),
        shared=dataclasses.replace(own.shared, protocol_every=100),  # the same bits, sooner
    )
    assert own.shared is not None
    found = {}
    for name, changes in {
        "own": {},
        "steps": {"local_steps": 2},
        "views": {"views": 2},
        "average": {"average": 0.5},
    }.items():
        settings = dataclasses.replace(own, shared=dataclasses.replace(own.shared, **changes))
        record = execute(settings, dataset, RunStore(tmp_path), device="cpu", quiet=True)
        found[name] = record
    assert len({record.run_id for record in found.values()}) == 4
    assert len({record.final_loss for record in found.values()}) == 4  # each does something
    for record in found.values():
        assert record.privacy == found["own"].privacy
        assert record.history[-1]["secagg"]["steps"] == found["own"].history[-1]["secagg"]["steps"]
    # An average is only looked at: the steps are the same ones.
    assert found["average"].diagnostics == found["own"].diagnostics


def two_rounds(shared: SharedNoise, *, stopped: bool) -> tuple[list[nn.Linear], SharedNoiseTrainer]:
    """The released model after each of two rounds; stopped: the second by another trainer, from
    the state of the first."""
    torch.manual_seed(0)
    model, made, released = nn.Linear(FEATURES, CLASSES), trainer(shared, rounds=2), []
    for number in (1, 2):
        made.train_round(model, hospitals(), number)
        released.append(copy.deepcopy(model))
        if stopped and number == 1:
            state = copy.deepcopy(made.state_dict())
            made = trainer(shared, rounds=2)
            made.load_state_dict(state)
    return released, made


def test_the_average_is_of_all_iterates_and_goes_on_after_a_stop():
    shared = SharedNoise(average=0.7, protocol_every=100)  # the same bits, sooner
    whole, made = two_rounds(shared, stopped=False)
    again, _ = two_rounds(shared, stopped=True)
    for first, second in zip(whole, again, strict=True):
        assert torch.equal(first.weight, second.weight)
    assert made.steps > 1
    # By hand, from the iterates of the same run without an average, one round a step.
    torch.manual_seed(0)
    model, plain = nn.Linear(FEATURES, CLASSES), trainer(SharedNoise(protocol_every=100), rounds=2)
    average, count = model.weight.detach().double().clone(), 0
    keep: list[torch.Tensor] = []
    apply = plain._apply

    def noted(release, parameters, optimizer):
        apply(release, parameters, optimizer)
        keep.append(parameters[0].detach().double().clone())

    plain._apply = noted  # type: ignore[method-assign]
    for number in (1, 2):
        plain.train_round(model, hospitals(), number)
        while count < len(keep):
            decay = min(0.7, (1 + count) / (10 + count))  # the warm-up of ``ParameterAverage``
            average = decay * average + (1 - decay) * keep[count]
            count += 1
        shown = whole[number - 1].weight.detach().double()
        assert float((shown - average).abs().max()) < 1e-6
    assert float((keep[-1] - average).abs().max()) > 1e-3


def test_without_an_average_the_last_iterate_is_released():
    model = nn.Linear(3, 2)
    averaging = Averaging(copy.deepcopy(model), 0.0)
    averaging.begin_round(model)
    with torch.no_grad():
        averaging.working.weight.add_(1)
    averaging.note_step()
    averaging.release_into(model)
    assert torch.equal(model.weight, averaging.working.weight)
    assert averaging.state_dict() == {}


def drawn(records, views, *, images=None, step=0, seed=SEED):
    if images is None:
        images = torch.arange(len(records) * 2 * 9.0).view(-1, 2, 3, 3)
    records = torch.as_tensor(records)
    return symmetric_views(images, records, views, seed=seed, hospital=1, round=2, step=step)


def test_views_are_different_symmetries_of_the_record_itself():
    image = torch.arange(18.0).view(1, 2, 3, 3)
    orbit = [symmetry(image[0], number) for number in range(SYMMETRIES)]
    assert len({tuple(one.flatten().tolist()) for one in orbit}) == SYMMETRIES
    for one in orbit:  # closed: a symmetry of a symmetry is one of them
        for number in range(SYMMETRIES):
            assert any(torch.equal(symmetry(one, number), other) for other in orbit)
    for views in (1, 3, SYMMETRIES):
        made = drawn([7], views, images=image)
        assert made.shape == (1, views, 2, 3, 3)
        places = [[torch.equal(view, other) for other in orbit].index(True) for view in made[0]]
        assert len(set(places)) == views


def test_views_hang_on_the_record_and_the_step_not_on_the_batch():
    images = torch.randn(3, 1, 4, 4)
    both = drawn([4, 9, 11], 2, images=images)
    alone = drawn([9], 2, images=images[1:2])
    assert torch.equal(both[1], alone[0])
    assert torch.equal(both, drawn([4, 9, 11], 2, images=images))
    many = torch.randn(1, 1, 4, 4).expand(64, -1, -1, -1)
    numbers = range(64)
    assert not torch.equal(drawn(numbers, 2, images=many), drawn(numbers, 2, images=many, step=1))
    other = drawn(numbers, 2, images=many, seed=RootSeed.from_user(4))
    assert not torch.equal(drawn(numbers, 2, images=many), other)


def test_every_pair_of_views_is_equally_likely():
    """χ² over the 56 ordered pairs, 4,000 records: above its 1 − 1e-6 quantile with probability
    1e-6 by chance. (Quantile by Wilson and Hilferty 1931; the seed is fixed.)"""
    image = torch.arange(9.0).view(1, 1, 3, 3).expand(4000, -1, -1, -1)
    made = drawn(range(4000), 2, images=image)
    orbit = torch.stack([symmetry(image[0], number) for number in range(SYMMETRIES)])
    same = (made.unsqueeze(2) == orbit).flatten(3).all(3)  # record, view, symmetry
    places = same.long().argmax(2).numpy()
    counts = np.bincount(places[:, 0] * SYMMETRIES + places[:, 1], minlength=64).reshape(8, 8)
    assert not counts.diagonal().any()
    off = counts[~np.eye(8, dtype=bool)]
    expected = 4000 / 56
    statistic = float(((off - expected) ** 2 / expected).sum())
    freedom, deviation = 55, 4.753  # of a standard normal, exceeded with probability 1e-6
    limit = freedom * (1 - 2 / (9 * freedom) + deviation * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit
    shifted = off + 20 * (np.arange(56) < 28) - 20 * (np.arange(56) >= 28)
    assert float(((shifted - expected) ** 2 / expected).sum()) > limit  # it could fail


def test_views_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="views"):
        SharedNoise(views=9)
    with pytest.raises(InputError, match="views"):
        drawn([0], 9)
    with pytest.raises(InputError, match="square"):
        drawn([0], 2, images=torch.zeros(1, 1, 3, 4))
    settings = small_settings("scattering-shared-eps6")
    assert settings.shared is not None
    settings = dataclasses.replace(settings, shared=dataclasses.replace(settings.shared, views=2))
    with pytest.raises(InputError, match="features"):
        assemble(
            settings, subset(small_dataset(), settings), seed=SEED, device="cpu", ranks=Ranks()
        )
