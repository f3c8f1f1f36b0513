"""A model is what it was after every call, whatever happened in it: layers under several names,
errors, interrupts. And the sums of such models are right."""

import contextlib
import copy
import gc
import random
import signal
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from repro.errors import InputError
from repro.privacy import (
    DPSGD,
    DPSGDSettings,
    check_engine,
    per_sample_gradients,
)
from repro.privacy.holding import call_holding
from repro.randomness import RootSeed
from tests.privacy.models import clipped, cross_entropy, looped_gradients, noiseless, small_training

ENGINES = ("auto", "bookkeeping", "vmap")


def records(n=12):
    torch.manual_seed(0)
    return torch.randn(n, 4), torch.randint(0, 3, (n,))


class Shared(nn.Module):
    """Encoder and decoder that are one block, and a layer that several blocks hold."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.encoder = nn.Sequential(nn.Linear(4, 4), layer)
        self.decoder = self.encoder
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.layer(self.decoder(torch.tanh(self.encoder(x)))))


def repeated():
    layer = nn.Linear(4, 4)
    return nn.Sequential(*[layer, nn.Tanh()] * 3, nn.Linear(4, 3))


def frozen_norm():
    norm = nn.BatchNorm1d(4)
    norm.running_mean.fill_(0.2)
    model = Shared(norm.requires_grad_(False))
    norm.eval()
    return model


def tied():
    """One parameter in two modules, and one of these twice."""
    layers = nn.Linear(4, 4), nn.Linear(4, 4)
    layers[1].weight = layers[0].weight
    return nn.Sequential(*layers, layers[0], nn.Linear(4, 3))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)
        self.again = self.body

    def forward(self, x):
        return self.head(self.again(self.body(x.unsqueeze(1))[0])[0][:, 0])


MODELS = {
    "a layer three times": repeated,
    "a norm in two modules": lambda: Shared(nn.LayerNorm(4)),
    "a PReLU in two modules": lambda: Shared(nn.PReLU(4)),
    "a frozen norm with buffers": frozen_norm,
    "a parameter in two layers": tied,
    "an LSTM twice": Recurrent,
}


def objects(model):
    """Everything by its name, in order, as objects: parameters, buffers, modules, hooks."""
    return [
        (path, kind, name, id(value))
        for path, module in model.named_modules(remove_duplicate=False)
        for kind in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
        for name, value in getattr(module, kind).items()
    ]


def private(model, x, y):
    small_training(model, TensorDataset(x, y), batch_size=4, seed=None).train_epoch()


def trained(model, x, y):
    settings = DPSGDSettings(
        clip_norm=1.0, noise_multiplier=1.0, expected_batch=4, learning_rate=0.1
    )
    place = {"seed": RootSeed.from_entropy(), "party": 0, "round": 0}
    DPSGD(settings).train(model, cross_entropy, x, y, steps=2, **place)


CALLS = {
    "per_sample_gradients": lambda m, x, y: per_sample_gradients(m, cross_entropy, x, y),
    "check_engine": lambda m, x, y: check_engine(m, cross_entropy, x, y),
    "clipped_noisy_sum": lambda m, x, y: noiseless(m, x, y, 0.3),
    "DPSGD": trained,
    "make_private": private,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_same_objects_under_the_same_names_afterwards(name, call):
    model, (x, y) = MODELS[name](), records()
    before = objects(model)
    CALLS[call](model, x, y)
    assert objects(model) == before
    assert model(x).shape == (12, 3)
    copy.deepcopy(model)  # an LSTM keeps its parameters in a list besides


@pytest.mark.parametrize("name", MODELS)
def test_the_sums_of_such_models_are_right(name):
    model, (x, y) = MODELS[name](), records()
    rows = looped_gradients(copy.deepcopy(model), cross_entropy, x, y)
    own = per_sample_gradients(model, cross_entropy, x, y)
    found = torch.cat([g.flatten(1) for g in own.values()], dim=1)
    torch.testing.assert_close(found.double(), rows, rtol=1e-4, atol=1e-6)
    no_rule = name in ("a PReLU in two modules", "an LSTM twice")
    for engine in ("auto", "vmap") if no_rule else ENGINES:
        found = noiseless(model, x, y, 0.3, engine=engine).flat
        torch.testing.assert_close(found.double(), clipped(rows, 0.3), rtol=1e-4, atol=1e-6)
    if no_rule:
        with pytest.raises(InputError, match="layer of parameter"):
            noiseless(model, x, y, 0.3, engine="bookkeeping")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [2, 9])
def test_errors_and_interrupts_leave_the_model_as_it_was(call, error, at):
    """Raised in the ``at``-th call of the shared layer, of this call's or of the next one's."""
    model, (x, y) = Shared(nn.LayerNorm(4)), records()
    calls = []

    def fail(*_):
        calls.append(1)
        if len(calls) == at:
            raise error

    model.layer.register_forward_hook(fail)
    before = objects(model)
    for _ in range(3):
        with contextlib.suppress(InputError, error):
            CALLS[call](model, x, y)
        assert objects(model) == before
    assert len(calls) >= at


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals on this system")
def test_an_interrupt_at_any_moment_of_the_exchange_leaves_the_model_as_it_was():
    """A timer raises, at a random moment of each of 1000 calls, what Ctrl-C raises. The call itself
    does nothing, so that most moments are of the exchange and its undoing, and torch's own stacks
    of modes, which an interrupt may well upset, have no part in it."""
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(20)])
    values = {name: p.detach().clone() for name, p in model.named_parameters()}
    before, source = objects(model), random.Random(0)

    def interrupt(*_):
        raise KeyboardInterrupt

    earlier, interrupted = signal.signal(signal.SIGALRM, interrupt), 0
    gc.disable()  # whose callbacks, other libraries', are no place for an exception
    try:
        for turn in range(1000):
            with contextlib.suppress(KeyboardInterrupt):
                interrupted += 1
                signal.setitimer(signal.ITIMER_REAL, source.uniform(1e-5, 6e-4))
                call_holding(model, values, lambda: None, hooks=True)
                signal.setitimer(signal.ITIMER_REAL, 0)
                interrupted -= 1
            assert turn % 10 or objects(model) == before
            assert model[0].weight is not values["0.weight"]
            assert model[19].bias is not values["19.bias"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
        gc.enable()
    assert objects(model) == before
    assert interrupted > 50


class Replaces(nn.Module):
    """Puts other tensors into the places of a parameter and a buffer, and takes one away."""

    def __init__(self, **replaced):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(4))
        self.scale = nn.Parameter(torch.ones(4), requires_grad=False)
        self.replaced = replaced

    def forward(self, x):
        for name, make in self.replaced.items():
            setattr(self, name, make(x.detach()))
        return self.layer((x - self.mean) * self.scale)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("mean", lambda x: x.mean(0)),
        ("scale", lambda x: nn.Parameter(1 + x.mean(0).abs(), requires_grad=False)),
    ],
)
def test_what_a_pass_puts_in_place_of_a_parameter_or_buffer_does_not_stay(name, make):
    model, (x, y) = Replaces(**{name: make}), records()
    before = objects(model)
    with pytest.raises(InputError, match=name):
        check_engine(model, cross_entropy, x, y)
    assert objects(model) == before


def test_values_are_held_under_every_name_and_only_there():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(OrderedDict(a=layer, b=nn.Linear(2, 2), c=layer))
    held = {"c.weight": torch.full((2, 2), 3.0)}
    before = objects(model)

    def call():
        assert model.a.weight is model.c.weight is held["c.weight"]
        assert model.b.weight is not held["c.weight"]
        assert next(iter(model.named_parameters()))[0] == "a.weight"
        del model.b.weight
        return model.a.bias is layer.bias

    assert call_holding(model, held, call)
    assert objects(model) == before
    assert list(held) == ["c.weight"]


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook"])
@pytest.mark.parametrize("call", CALLS)
def test_hooks_on_parameters_are_refused_by_name(kind, call):
    """They would be dropped, by autograd on constants and by torch.func alike."""
    model, (x, y) = repeated(), records()
    handle = getattr(model[6].bias, kind)(lambda value: None)
    with pytest.raises(InputError, match=r"parameter 6\.bias: got .*hook on its gradient"):
        CALLS[call](model, x, y)
    handle.remove()
    CALLS[call](model, x, y)


def test_a_model_that_holds_nothing_of_others_is_asked_for():
    x, y = records()
    wrapped = nn.Sequential(nn.Linear(4, 3), nn.DataParallel(nn.Linear(3, 3)))
    with pytest.raises(InputError, match=r"layer 1: got .*DataParallel"):
        check_engine(wrapped, cross_entropy, x, y)
