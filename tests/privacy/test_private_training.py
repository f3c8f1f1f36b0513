"""``make_private``: the plan is right, the path is the one, and what it cannot do is refused."""

import copy
import functools
import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from repro.accounting import (
    PLDAccountant,
    PoissonSampledGaussianEvent,
    RDPAccountant,
    calibrate_noise_multiplier,
    gaussian_sigma,
)
from repro.errors import InputError
from repro.privacy import clipped_noisy_sum, make_private
from repro.privacy.noise_key import noise_keys
from repro.privacy.sampling import PoissonSampler
from repro.randomness import RootSeed
from tests.privacy.models import finish, flat, refused, take, through_a_file

LOSS = nn.CrossEntropyLoss(reduction="none")
RECORDS = 60


def data(count=RECORDS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


def network(dropout=0.0):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 2))


def planned(model=None, optimizer=None, records=None, **options):
    model = network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if optimizer is None else optimizer
    wanted = {
        "loss_fn": LOSS,
        "target_epsilon": 3.0,
        "target_delta": 1e-3,
        "epochs": 2,
        "clip_norm": 1.0,
        "batch_size": 10,
        "seed": 7,
    } | options
    return make_private(model, optimizer, data() if records is None else records, **wanted)


def test_the_same_seed_on_other_data_or_another_plan_is_refused():
    """Its noise would be the same: the difference of two such trainings has none."""
    planned().step()
    again = planned()
    again.step()  # a replay
    for options in ({"records": data(seed=1)}, {"clip_norm": 0.5}):
        with pytest.raises(InputError, match=r"noise key: got .step 0 on other data"):
            planned(**options).step()


def summed_by_hand(model, step, noise_multiplier, clip_norm=1.0, bands=1):
    """The private sum of a step of ``planned`` from the documented parts: its Poisson batch and the
    public path. A world of its own: parameters may differ by rounding from the other one's."""
    noise_keys.clear()
    root = RootSeed.from_user(7)
    sampler = PoissonSampler.with_expected_batch(RECORDS, 10, bands)
    drawn = sampler.sample(root, party=0, round=0, step=step)
    place = {"seed": root.derive("make-private noise"), "step": step}
    scales = {"clip_norm": clip_norm, "noise_multiplier": noise_multiplier}
    batch = (tensor[drawn] for tensor in data().tensors)
    noisy = clipped_noisy_sum(model, LOSS, *batch, **scales, **place)
    noise_keys.clear()
    return noisy


def weights(training):
    return flat(training.model)


def test_the_plan_spends_what_was_asked_and_no_more():
    training = planned(target_epsilon=2.0, epochs=3)
    assert training.planned_steps == 3 * math.ceil(RECORDS / 10)
    while not training.finished:
        training.train_epoch()
    assert training.epoch == 3
    event = PoissonSampledGaussianEvent(training.noise_multiplier, 10 / RECORDS)
    rdp = RDPAccountant().compose(event, training.planned_steps).epsilon(1e-3)[0]
    assert training.epsilon() <= 2.0
    assert training.epsilon() == pytest.approx(2.0, rel=1e-3)
    assert training.epsilon() <= rdp
    bound = training.bound()
    assert (bound.method, bound.by_method["rdp"]) == ("pld", rdp)
    assert "after 18 of 18 steps" in training.statement()
    assert "accountant: privacy loss distribution" in training.statement()
    with pytest.raises(InputError, match="at most 18"):
        training.step()
    with pytest.raises(InputError, match="at most 18"):
        training.train_epoch()


def test_the_noise_is_the_least_that_any_proof_allows():
    """Less than RDP would ask for, by what RDP gives away; exact where there is no sampling."""
    training = planned(target_epsilon=2.0, epochs=3)
    by_rdp, _ = calibrate_noise_multiplier(2.0, 1e-3, 10 / RECORDS, 18, accountant="rdp")
    assert training.noise_multiplier < 0.95 * by_rdp
    step = PoissonSampledGaussianEvent(training.noise_multiplier, 10 / RECORDS)
    assert RDPAccountant().compose(step, 18).epsilon(1e-3)[0] > 2.0
    assert PLDAccountant().compose(step, 18).epsilon(1e-3)[0] <= 2.0
    whole = planned(batch_size=RECORDS)
    whole.step()
    assert whole.bound().method == "gaussian"
    assert whole.noise_multiplier == pytest.approx(gaussian_sigma(3.0, 1.0, 2, 1e-3), rel=1e-6)
    assert "exact Gaussian" in whole.statement()


def test_each_step_is_the_one_private_path():
    """By hand from the documented parts: the same Poisson batch, sum, divisor and update."""
    training = planned()
    model = copy.deepcopy(training.model)
    for step in range(4):
        noisy = summed_by_hand(model, step, training.noise_multiplier)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter -= 0.1 * noisy.gradient[name] / 10
        training.step()
    torch.testing.assert_close(weights(training), flat(model), rtol=1e-6, atol=1e-7)


OPTIMIZERS = [
    functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    functools.partial(torch.optim.AdamW, lr=0.01),
    functools.partial(torch.optim.RMSprop, lr=0.01),
    functools.partial(torch.optim.Adagrad, lr=0.1),
    functools.partial(torch.optim.NAdam, lr=0.01),
    functools.partial(torch.optim.Rprop, lr=0.01),
]
SCHEDULERS = [
    None,
    functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2),
    functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5),
]


@pytest.mark.parametrize(
    ("new_optimizer", "new_scheduler"),
    [
        *((optimizer, SCHEDULERS[1]) for optimizer in OPTIMIZERS),
        *product(OPTIMIZERS[:1], (SCHEDULERS[0], SCHEDULERS[2])),
    ],
)
def test_any_optimizer_and_scheduler_and_a_state_that_goes_on(new_optimizer, new_scheduler):
    """Cut in the middle of an epoch, saved to bytes, taken up in new objects: the same bits."""

    def new():
        model = network(dropout=0.5)
        optimizer = new_optimizer(model.parameters())
        scheduler = new_scheduler(optimizer) if new_scheduler else None
        return planned(model, optimizer, scheduler=scheduler)

    whole, cut, resumed = new(), new(), new()
    finish(whole)
    take(8, cut)
    resumed.load_state_dict(through_a_file(cut.state_dict()))
    assert resumed.epsilon() == cut.epsilon()
    finish(resumed)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.optimizer.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"]
    if new_scheduler:
        rate = whole.optimizer.param_groups[0]["lr"]
        assert rate != new_optimizer.keywords["lr"], "the scheduler was stepped"


def test_a_scheduler_may_be_stepped_every_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    training = planned(model, optimizer, scheduler=scheduler, scheduler_every="step")
    take(3, training)
    assert optimizer.param_groups[0]["lr"] == 0.125


class Pairs(Dataset):
    """A data set of one's own: no tensors to index, labels as plain integers."""

    def __init__(self, count=RECORDS):
        self.inputs, self.targets = data(count).tensors

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], int(self.targets[index])


@pytest.mark.parametrize(
    "records",
    [
        Pairs(),
        DataLoader(data(), batch_size=10, shuffle=True, drop_last=True),
        DataLoader(Pairs(), batch_size=10),
        ConcatDataset([Subset(data(), range(25)), Subset(data(), range(25, RECORDS))]),
    ],
    ids=["own", "loader", "own loader", "parts"],
)
def test_the_same_records_in_any_wrapping_train_alike(records):
    first, other = planned(), planned(records=records)
    take(3, first, other)
    assert torch.equal(weights(first), weights(other))


def test_the_loaders_batch_size_and_collate_are_taken():
    def doubled(batch):
        inputs, targets = zip(*batch, strict=True)
        return 2 * torch.stack(inputs), torch.tensor(targets)

    loader = DataLoader(Pairs(), batch_size=15, collate_fn=doubled)
    training = planned(records=loader, batch_size=None)
    assert training.sample_rate == 15 / RECORDS
    inputs, targets = data().tensors
    other = planned(records=TensorDataset(2 * inputs, targets), batch_size=15)
    take(1, training, other)
    assert torch.equal(weights(training), weights(other))


def test_an_empty_batch_still_makes_a_noisy_step():
    records = data(3)
    training = planned(records=records, batch_size=1, target_delta=1e-2, epochs=20, seed=3)
    sampler, root = PoissonSampler.with_expected_batch(3, 1), RootSeed.from_user(3)
    drawn = [
        len(sampler.sample(root, party=0, round=0, step=step))
        for step in range(training.planned_steps)
    ]
    assert 0 in drawn, "this seed draws an empty batch"
    for size in drawn:
        before = weights(training)
        training.step()
        assert not torch.equal(before, weights(training)), size


def test_noise_has_the_planned_deviation():
    """On one record whose gradient is zero, 40 steps of SGD at rate 1 are noise alone.

    The sample variance of 40 · 100 values lies within 12 % of the truth but for a false alarm of
    about 1e-7 (5.3 standard errors of a χ² with 4000 degrees of freedom); the seed is fixed.
    """
    model = nn.Linear(99, 1)
    training = planned(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        TensorDataset(torch.zeros(2, 99), torch.zeros(2)),
        loss_fn=lambda outputs, targets: 0.0 * outputs[:, 0],
        batch_size=1,
        epochs=20,
        target_delta=1e-2,
        clip_norm=0.5,
    )
    moved = []
    while not training.finished:
        before = weights(training)
        training.step()
        moved.append(weights(training) - before)
    variance = float(torch.stack(moved).var())
    assert training.planned_steps == 40
    assert variance == pytest.approx((training.noise_multiplier * 0.5) ** 2, rel=0.12)


def test_without_a_seed_keys_come_from_the_operating_system():
    one, other = planned(seed=None), planned(seed=None)
    take(1, one, other)
    assert not torch.equal(weights(one), weights(other))
    assert "operating system entropy" in one.statement()
    state = one.state_dict()
    assert state["plan"]["seed"] is None
    planned(seed=None).load_state_dict(state)


def test_only_its_own_steps_move_the_optimizer():
    training = planned()
    before = weights(training)
    loss = F.cross_entropy(training.model(data().tensors[0]), data().tensors[1])
    loss.backward()
    with pytest.raises(InputError, match="a call of one's own"):
        training.optimizer.step()
    assert torch.equal(before, weights(training))
    training.step()  # and the gradient that was left is not used
    clean = planned()
    clean.step()
    assert torch.equal(weights(clean), weights(training))
    assert all(p.grad is None for p in training.model.parameters())
    training.close()
    training.optimizer.step()
    assert training.finished


def test_frozen_parameters_stay():
    model = network()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    model[0].weight.grad = torch.ones_like(before)  # left by something else
    training = planned(model, torch.optim.SGD(model.parameters(), lr=0.1))
    training.step()
    assert torch.equal(model[0].weight, before)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(data())


class Growing(Pairs):
    extra = 0

    def __len__(self):
        return RECORDS + self.extra


def loader(**options):
    return DataLoader(data(), **options)


WEIGHTED = WeightedRandomSampler(torch.ones(RECORDS), RECORDS)
BATCHES = BatchSampler(SequentialSampler(range(RECORDS)), 5, drop_last=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"records": Stream()}, "map-style"),
        ({"records": DataLoader(Stream(), batch_size=5)}, "map-style"),
        ({"records": loader(batch_size=None)}, "batch_size"),
        ({"records": loader(batch_size=5, sampler=WEIGHTED)}, "WeightedRandomSampler"),
        (
            {"records": loader(batch_size=5, sampler=RandomSampler(data(), replacement=True))},
            "RandomSampler",
        ),
        ({"records": Subset(data(), [0, 1, 1])}, "twice"),
        ({"records": TensorDataset(torch.ones(RECORDS, 4))}, "(input, target)"),
        ({"records": data(0)}, "at least one record"),
        ({"records": TensorDataset(torch.ones(20, 5), torch.ones(20).long())}, "(16, 5)"),
        ({"batch_size": None}, "batch_size"),
        ({"batch_size": RECORDS + 1}, "batch_size"),
        ({"target_delta": 1 / RECORDS}, "below 1 ÷ 60"),
        ({"target_delta": 0.0}, "target_delta"),
        ({"target_epsilon": 0.0}, "target_epsilon"),
        ({"target_epsilon": float("nan")}, "target_epsilon"),
        ({"epochs": 0}, "epochs"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"noise": "none"}, "noise"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"seed": -1}, "seed"),
        ({"scheduler_every": "batch"}, "scheduler_every"),
        ({"loss_fn": nn.CrossEntropyLoss()}, "reduction"),
        ({"loss_fn": F.cross_entropy}, "one loss per record"),
    ],
)
def test_what_does_not_fit_is_one_line(options, said):
    with refused(said):
        planned(**options)


def test_models_and_optimizers_that_do_not_fit_are_refused():
    def against(model, optimizer, said, **options):
        with refused(said):
            planned(model, optimizer, **options)

    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    mixing = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    against(mixing, sgd(mixing.parameters()), "GroupNorm")
    model = network()
    against(model, torch.optim.LBFGS(model.parameters()), "closure")
    against(model, torch.optim.SparseAdam(list(model.parameters())), "dense")
    against(model, sgd(model[0].parameters()), "parameter 3.weight")
    against(model, sgd([*model.parameters(), nn.Parameter(torch.ones(1))]), "further parameters")
    used = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    used.step()
    against(model, used, "a fresh one")
    held = planned(model)
    against(model, held.optimizer, "no other private training")
    held.close()
    planned(model, held.optimizer)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd(model.parameters()))
    against(model, plateau.optimizer, "metric", scheduler=plateau)
    other = torch.optim.lr_scheduler.ConstantLR(sgd(model.parameters()))
    against(model, sgd(model.parameters()), "another optimizer", scheduler=other)


def test_a_data_set_that_grows_is_refused():
    records = Growing()
    training = planned(records=records)
    training.step()
    records.extra = 1
    with pytest.raises(InputError, match="61 records"):
        training.step()


@pytest.mark.parametrize(
    "options", [{"seed": 8}, {"clip_norm": 2.0}, {"target_epsilon": 4.0}, {"records": data(50)}]
)
def test_the_state_of_another_plan_is_refused(options):
    training = planned()
    training.step()
    with pytest.raises(InputError, match="state"):
        planned(**options).load_state_dict(training.state_dict())
    with pytest.raises(InputError, match="at its beginning"):
        training.load_state_dict(training.state_dict())


def test_it_learns():
    """Loose privacy on an easy task: far from chance, so signs and scales are right."""
    records = data(400)
    model = network()
    training = planned(
        model,
        torch.optim.Adam(model.parameters(), lr=0.02),
        records,
        target_epsilon=8.0,
        epochs=10,
        batch_size=40,
    )
    while not training.finished:
        training.train_epoch()
    inputs, targets = records.tensors
    assert float((model(inputs).argmax(1) == targets).float().mean()) > 0.85
