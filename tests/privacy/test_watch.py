"""A choice of engine is for the state of the model it was found for, and is looked at again."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from repro.errors import InputError
from repro.privacy import DPSGD, DPSGDSettings, check_engine
from repro.privacy.dpsgd import DPSGDRun
from repro.privacy.gate import Voided, choice, watch
from repro.privacy.records import Records
from repro.randomness import RootSeed
from tests.privacy.models import PLACE, cross_entropy, noiseless, small_training, take

ALONE = "records are taken one at a time"
SETTINGS = DPSGDSettings(clip_norm=1.0, noise_multiplier=1.0, expected_batch=20, learning_rate=0.1)


def records(n=97):
    torch.manual_seed(0)
    x, y = torch.randn(n, 12), torch.randint(0, 4, (n,))
    x[-1] *= 50
    return x, y


def change_by_one_record(model, x, y):
    with pytest.warns(RuntimeWarning, match=ALONE):
        with_it = noiseless(model, x, y)
    assert with_it.engine == "vmap"
    return float((with_it.flat - noiseless(model, x[:-1], y[:-1]).flat).norm())


class Calls(nn.Module):
    """A linear layer on what ``change`` makes of the batch."""

    def __init__(self, change=lambda x: x):
        super().__init__()
        self.layer, self.change = nn.Linear(12, 4), change
        self.mix, self.config, self.switches = False, SimpleNamespace(mix=False), {"mix": [False]}

    def forward(self, x):
        mixed = self.mix or self.config.mix or self.switches["mix"][0]
        return self.layer(centred(x) if mixed else self.change(x))


def centred(x):
    return x - x.mean(0)


@pytest.fixture
def tries(monkeypatch):
    seen = []
    inside = choice._decide
    monkeypatch.setattr(choice, "_decide", lambda *given: seen.append(1) or inside(*given))
    return seen


@pytest.fixture
def every_sum_in_depth(monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 1)


# Sizes.


@pytest.mark.parametrize(
    "change",
    [
        lambda x: centred(x) if len(x) >= 5 else x,
        lambda x: centred(x) if len(x) >= 40 else x,
        lambda x: x * len(x) if len(x) >= 5 else x,
        lambda x: x + x.roll(7, 0) if len(x) >= 30 else x,
    ],
    ids=["from 5", "from 40", "by number", "seven further"],
)
def test_mixing_in_larger_batches_than_the_first_tries_is_seen(change):
    """In the first sum, and again in one of a larger batch than before."""
    x, y = records()
    assert change_by_one_record(Calls(change), x, y) <= 1.001
    model = Calls(change)
    assert noiseless(model, x[:4], y[:4]).engine == "bookkeeping"
    assert change_by_one_record(model, x, y) <= 1.001
    with pytest.raises(InputError, match="batch of 49"):
        noiseless(Calls(change), x, y, engine="bookkeeping")


def test_mixing_at_one_size_is_seen_in_the_step_that_has_it():
    """Smaller and larger ones have been tried; nothing is released of the mixed sum."""
    x, y = records(60)
    model = Calls(lambda x: centred(x) if len(x) == 37 else x)
    for size in (20, 60, 36):
        assert noiseless(model, x[:size], y[:size]).engine == "bookkeeping"
    alone = noiseless(Calls(), x[:37], y[:37], engine="vmap")
    with pytest.warns(RuntimeWarning, match=f"{ALONE}.*batch of 37"):
        found = noiseless(model, x[:37], y[:37])
    assert found.engine == "vmap"
    assert noiseless(model, x[:60], y[:60]).engine == "vmap"  # for good
    model.change = lambda x: x
    expected = noiseless(model, x[:37], y[:37], engine="vmap").flat
    torch.testing.assert_close(found.flat, expected)
    assert alone.records == 37


class _CentredOnTheWayBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return centred(g)


class Backwards(Calls):
    """Mixes nothing on its way there, so that no output tells."""

    def __init__(self, mixing):
        super().__init__()
        self.first, self.mixing = nn.Linear(12, 12), mixing

    def forward(self, x):
        inner = self.first(x).tanh()
        return self.layer(_CentredOnTheWayBack.apply(inner) if self.mixing(x) else inner)


def test_gradients_that_mix_on_their_way_back_in_larger_batches_are_seen():
    x, y = records()
    assert change_by_one_record(Backwards(lambda x: len(x) > 20), x, y) <= 1.001
    with pytest.raises(InputError, match="batch of 49"):
        noiseless(Backwards(lambda x: len(x) > 20), x, y, engine="bookkeeping")


def test_gradients_that_begin_to_mix_on_their_way_back_are_seen(hidden, every_sum_in_depth):
    """The state of the model looks the same, and no output is another."""
    model, (x, y) = Backwards(lambda x: HIDDEN["change"](False)), records(60)
    noiseless(model, x, y)
    hidden(lambda mixing: True)
    with pytest.raises(Voided, match="NO guarantee"):
        noiseless(model, x, y)


def test_make_private_tries_the_size_of_its_steps():
    x, y = records()
    with pytest.warns(RuntimeWarning, match="batch of 48"):
        training = private(Calls(lambda x: centred(x) if len(x) >= 41 else x), x, y, 48)
    training.train_epoch()
    assert training.void is None


# The state of the model.


def _hook(model):
    model.layer.register_forward_pre_hook(lambda module, args: (centred(args[0]),))


def _inner_forward(model):
    inside = model.layer.forward
    model.layer.forward = lambda x: inside(centred(x))


def _switch(model):
    model.register_buffer("on", torch.ones(()))
    model.change = lambda x: centred(x) if bool(model.on) else x


CHANGES = {
    "hook": _hook,
    "output hook": lambda m: m.register_forward_hook(lambda module, args, out: centred(out)),
    "forward": lambda m: setattr(m, "forward", lambda x: m.layer(centred(x))),
    "inner forward": _inner_forward,
    "attribute": lambda m: setattr(m, "mix", True),
    "of an object": lambda m: setattr(m.config, "mix", True),
    "in a list": lambda m: m.switches["mix"].__setitem__(0, True),
    "function": lambda m: setattr(m, "change", centred),
    "switch": _switch,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_changed_model_is_tried_anew(change, monkeypatch):
    """By the look of it, before anything is computed: later looks have no part in this."""
    monkeypatch.setattr(watch, "as_alone", lambda *_, **__: True)
    model, (x, y) = Calls(), records()
    assert noiseless(model, x, y).engine == "bookkeeping"
    change(model)
    assert change_by_one_record(model, x, y) <= 1.001


def test_a_flag_of_the_class_and_of_a_closure(monkeypatch):
    monkeypatch.setattr(watch, "as_alone", lambda *_, **__: True)

    class Flagged(Calls):
        mixing = False

        def forward(self, x):
            return self.layer(centred(x) if self.mixing else x)

    x, y = records()
    model = Flagged()
    noiseless(model, x, y)
    Flagged.mixing = True
    assert change_by_one_record(model, x, y) <= 1.001

    on = False

    def change(x):
        return centred(x) if on else x

    model = Calls(change)
    noiseless(model, x, y)
    on = True
    assert change_by_one_record(model, x, y) <= 1.001


def test_a_run_with_its_engine_pinned_notices_too():
    x, y = records()
    run = DPSGDRun(SETTINGS, Calls(), cross_entropy, x, y, **PLACE)
    run.step()
    assert run.report().engine == "bookkeeping"
    _hook(run.model)
    with pytest.warns(RuntimeWarning, match=ALONE):
        run.step()
    assert run.report().engine == "vmap"


def test_what_leaves_the_model_as_it_was_is_not_tried_again(tries):
    """A step's new parameters, a counter that passes count up; but hooks and autocast are."""
    model, (x, y) = Calls(), records()

    def counting(x):
        model.__dict__["calls"] = model.__dict__.get("calls", 0) + 1
        model.__dict__["shape"] = tuple(x.shape)
        return x

    model.change = counting
    for size in (48, 31, 44):
        noiseless(model, x[:size], y[:size])
        with torch.no_grad():
            model.layer.weight.add_(0.1)
    assert len(tries) == 1
    with torch.autocast("cpu", torch.bfloat16):
        noiseless(model, x[:48], y[:48])
    assert len(tries) == 2
    handle = model.layer.register_forward_hook(lambda *_: None)
    noiseless(model, x[:48], y[:48])
    handle.remove()
    noiseless(model, x[:48], y[:48])  # remembered from before
    assert len(tries) == 3


def test_a_model_that_mixes_from_the_start_is_still_refused():
    model, (x, y) = Calls(centred), records()
    for _ in range(2):
        with pytest.raises(InputError, match="whatever records stand beside it"):
            noiseless(model, x, y)


# What no look at the model shows.

HIDDEN = {"change": lambda x: x}


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 4)

    def forward(self, x):
        return self.layer(HIDDEN["change"](x))


@pytest.fixture
def hidden(monkeypatch):
    return lambda change: monkeypatch.setitem(HIDDEN, "change", change)


def weakly(x):
    """Moves outputs by less than alone and together may differ."""
    return x - 1e-3 * x.mean(0)


def test_a_global_switch_is_seen_in_its_first_step(hidden):
    """The state of the model looks the same, as nothing of it reads globals of its code."""
    model, (x, y) = Hidden(), records(60)
    for _ in range(3):
        assert noiseless(model, x, y).engine == "bookkeeping"
    hidden(centred)
    x[-1] *= 1
    with pytest.warns(RuntimeWarning, match=ALONE):
        with_it = noiseless(model, x, y)
    assert with_it.engine == "vmap"
    assert float((with_it.flat - noiseless(model, x[:-1], y[:-1]).flat).norm()) <= 1.001


def test_mixing_too_weak_for_one_record_alone_voids_what_went_before(hidden, every_sum_in_depth):
    x, y = records(40)
    x[-1] /= 50
    for engine, then in (("auto", None), ("bookkeeping", "now records mixed")):
        hidden(lambda x: x)
        model = Hidden()
        noiseless(model, x, y, engine=engine)
        hidden(weakly)
        with pytest.raises(Voided, match="NO guarantee"):
            noiseless(model, x, y, engine=engine)
        if then is None:
            with pytest.warns(RuntimeWarning, match=ALONE):
                assert noiseless(model, x, y, engine=engine).engine == "vmap"
        else:
            with pytest.raises(InputError, match=then):
                noiseless(model, x, y, engine=engine)


def private(model, x, y, batch_size=20, data=None, optimizer=None):
    data = TensorDataset(x, y) if data is None else data
    by_epsilon = {"noise_multiplier": None, "target_epsilon": 3.0, "batch_size": batch_size}
    return small_training(model, data, optimizer, **by_epsilon, seed=5)


def test_mixing_at_a_size_that_had_passed_voids_too(hidden):
    """Found when a larger batch is tried, but it is not the larger batch that brings it."""
    x, y = records(60)
    x[-1] /= 50
    model = Hidden()
    noiseless(model, x[:20], y[:20])
    hidden(weakly)
    with pytest.raises(Voided, match="batch of 20"):
        noiseless(model, x, y)


def test_a_void_training_says_so_for_good(hidden, every_sum_in_depth):
    x, y = records(60)
    x[-1] /= 50
    training = private(Hidden(), x, y)
    training.step()
    assert training.epsilon() <= 3.0
    assert training.void is None
    hidden(weakly)
    with pytest.raises(Voided):
        training.step()
    hidden(lambda x: x)
    assert (training.steps, training.epsilon()) == (1, float("inf"))
    assert training.statement().startswith("no guarantee after 1 of 3 steps: model")
    assert training.bound().method == "none"
    resumed = private(Hidden(), x, y)
    resumed.load_state_dict(training.state_dict())
    assert resumed.epsilon() == float("inf")


@pytest.mark.parametrize("change", [centred, weakly])
def test_the_last_step_is_followed_by_another_look(hidden, change):
    """Mixing that the steps' own looks have not seen: it begins after the last sum."""
    x, y = records(60)
    model = Hidden()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = private(model, x, y, optimizer=optimizer)
    taken = []
    optimizer.register_step_post_hook(
        lambda *_: taken.append(1) or (len(taken) == 3 and hidden(change))
    )
    with pytest.raises(Voided, match="NO guarantee"):
        training.train_epoch()
    assert (training.steps, training.finished) == (3, True)
    assert training.epsilon() == float("inf")


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_a_training_that_diverges_keeps_its_guarantee(engine):
    """Parameters of NaN leave the last look nothing to compare, and prove nothing against what
    was released before."""
    x, y = records(60)
    model = Calls()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e30, weight_decay=1.0, momentum=0.9)
    data, plan = TensorDataset(x, y), {"epochs": 3, "batch_size": 20, "engine": engine}
    training = small_training(model, data, optimizer, **plan)
    while not training.finished:
        training.train_epoch()
    assert not bool(model.layer.weight.isfinite().any())
    assert training.void is None
    assert training.epsilon() == training.planned_epsilon() < float("inf")


def local(x, y):
    """A hospital's round, of a model that shows nothing of the change."""
    place = {"seed": RootSeed.from_user(5), "party": 0, "round": 1}
    return DPSGDRun(SETTINGS, Hidden(), cross_entropy, x, y, **place)


def test_a_hospitals_run_is_looked_at_once_more_and_a_void_one_reports_nothing(hidden):
    x, y = records(60)
    run = local(x, y)
    take(3, run)
    run.look_again()
    assert run.report().steps == 3
    hidden(weakly)
    with pytest.raises(Voided, match="NO guarantee"):
        run.look_again()
    hidden(lambda x: x)
    resumed = local(x, y)
    resumed.load_state_dict(run.state_dict())
    for call in (run.step, run.report, resumed.report, resumed.step):
        with pytest.raises(Voided, match="NO guarantee"):
            call()


def test_a_void_step_of_a_hospital_leaves_nothing_to_report(hidden, every_sum_in_depth):
    x, y = records(60)
    x[-1] /= 50
    run = local(x, y)
    run.step()
    hidden(weakly)
    with pytest.raises(Voided):
        run.step()
    hidden(lambda x: x)
    with pytest.raises(Voided):
        run.report()


@pytest.mark.parametrize("more_rounds", [False, True])
def test_the_last_round_ends_with_a_look(hidden, monkeypatch, more_rounds):
    """Mixing that begins after the last sum: seen at the end of the last round, not before."""
    x, y = records(60)
    after = DPSGDRun.step
    monkeypatch.setattr(DPSGDRun, "step", lambda run: (after(run), hidden(weakly))[0])
    hidden(lambda x: x)

    def train():
        place = {"seed": RootSeed.from_user(6), "party": 0, "round": 2, "steps": 1}
        trainer = DPSGD(SETTINGS)
        return trainer.train(Hidden(), cross_entropy, x, y, **place, more_rounds=more_rounds)

    if more_rounds:
        assert train().steps == 1
    else:
        with pytest.raises(Voided, match="NO guarantee"):
            train()


def test_later_looks_cost_a_record_a_step(monkeypatch):
    """Rows that pass through the model, in 64 sums of 60 records: their own, one each, and four
    batches in one sum of 32 on average (at most 7 times here: chance of more below 1 %)."""
    monkeypatch.setattr(watch, "_turns", random.Random(0))
    rows = []
    model, (x, y) = Calls(lambda x: rows.append(len(x)) or x), records(60)
    noiseless(model, x, y)
    rows.clear()
    for _ in range(64):
        noiseless(model, x, y)
    assert 64 * 61 <= sum(rows) <= 64 * 61 + 7 * 240
    assert sum(rows) > 64 * 61  # some were looked at in depth


# Data sets.


class Items(Dataset):
    """``item(x, index, what was fetched before)`` of a record."""

    def __init__(self, item):
        self.x, self.y = records(30)
        self.item, self.last = item, torch.zeros(12)

    def __len__(self):
        return 30

    def __getitem__(self, index):
        made = self.item(self.x[index], index, self.last)
        self.last = self.x[index]
        return made, self.y[index]


def test_a_data_set_whose_items_depend_on_earlier_ones_is_refused():
    with pytest.raises(InputError, match=r"data: got .*another one after others were fetched"):
        private(Calls(), None, None, 10, data=Items(lambda x, index, last: x + last))


def test_a_data_set_that_augments_is_not():
    own = torch.Generator().manual_seed(0)
    for augment in (
        lambda x, *_: x + 0.1 * torch.randn(12),
        lambda x, *_: x * random.random(),
        lambda x, *_: x + torch.randn(12, generator=own),  # cannot be compared
    ):
        private(Calls(), None, None, 10, data=Items(augment))


def test_trying_the_data_set_leaves_generators_as_they_were():
    items = Items(lambda x, *_: x * torch.rand(1) * np.random.random())  # noqa: NPY002
    tried = Records(items, torch.device("cpu"))
    torch.manual_seed(3)
    expected = torch.rand(2), np.random.RandomState(3).random()
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    tried.refuse_mixing()
    assert torch.equal(torch.rand(2), expected[0])
    assert np.random.random() == expected[1]  # noqa: NPY002


def test_check_engine_takes_the_size_it_is_told():
    x, y = records(16)
    model = Calls(lambda x: centred(x) if len(x) > 20 else x)
    assert check_engine(model, cross_entropy, x, y).engine.name == "bookkeeping"
    with pytest.warns(RuntimeWarning, match="batch of 30"):
        assert check_engine(model, cross_entropy, x, y, at_once=30).engine.name == "vmap"
