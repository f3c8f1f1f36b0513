"""No pass writes records into the model: parameters, frozen ones, buffers, attributes."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from repro.errors import InputError
from repro.privacy import check_engine, per_sample_gradients
from repro.privacy.engines import ENGINES
from tests.privacy.models import (
    clipped,
    cross_entropy,
    looped_gradients,
    noiseless,
    small_training,
)


def records(n=6):
    torch.manual_seed(0)
    return 3 * torch.randn(n, 4), torch.randint(0, 3, (n,))


class Writes(nn.Module):
    """A layer, and a function that is called with the model and each input before it."""

    def __init__(self, write, **state):
        super().__init__()
        self.layer, self._write = nn.Linear(4, 3), write
        for name, value in state.items():
            if isinstance(value, (nn.Module, nn.Parameter)):
                setattr(self, name, value)
            else:
                self.register_buffer(name, value)

    def forward(self, x):
        self._write(self, x.detach())
        return self.layer(x)


def frozen(size=4):
    return nn.Parameter(torch.zeros(size), requires_grad=False)


def _in_place(model, x):
    with torch.no_grad():
        model.mu.mul_(0.9).add_(0.1 * x.mean(0))


def _through_data(model, x):
    model.mu.data.mul_(0.9).add_(0.1 * x.mean(0))


def _initialised(model, x):
    if not bool(model.mu.any()):
        model.mu.data.copy_(-x.mean(0))


def _into_the_layer(model, x):
    model.layer.weight.data[0].add_(1e-3 * x.mean(0))


STATE = {
    "frozen parameter": lambda: Writes(_in_place, mu=frozen()),
    "frozen parameter through data": lambda: Writes(_through_data, mu=frozen()),
    "frozen parameter initialised from data": lambda: Writes(_initialised, mu=frozen()),
    "buffer": lambda: Writes(_in_place, mu=torch.zeros(4)),
    "buffer through data": lambda: Writes(_through_data, mu=torch.zeros(4)),
    "trained parameter through data": lambda: Writes(_into_the_layer),
    "trained parameter initialised from data": lambda: Writes(
        lambda model, x: _initialised(model.b, x), b=_bias()
    ),
}


def _bias():
    layer = nn.Module()
    layer.mu = nn.Parameter(torch.zeros(4))
    return layer


def contents(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def is_unchanged(model, before):
    after = model.state_dict()
    return after.keys() == before.keys() and all(
        torch.equal(after[name], value) for name, value in before.items()
    )


@pytest.mark.parametrize("engine", ["auto", "bookkeeping", "vmap"])
@pytest.mark.parametrize("name", STATE)
def test_a_forward_pass_that_writes_to_the_model_is_refused_by_name(name, engine):
    model, (x, y) = STATE[name](), records()
    before = contents(model)
    what = "buffer" if "buffer" in name else "parameter"
    with pytest.raises(InputError, match=f"writes to its .*{what}|bookkeeping"):
        check_engine(model, cross_entropy, x, y, engine=engine)
    assert is_unchanged(model, before)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
@pytest.mark.parametrize("name", STATE)
def test_an_engine_without_the_gate_leaves_the_model_as_it_was(name, engine):
    """A step long after the gate: what only then writes to the model is refused there."""
    model, (x, y) = STATE[name](), records()
    before = contents(model)
    with pytest.raises((InputError, RuntimeError)):
        noiseless(model, x, y, engine=engine)
    with pytest.raises((InputError, RuntimeError)):
        per_sample_gradients(model, cross_entropy, x, y)
    assert is_unchanged(model, before)


def test_a_frozen_embedding_of_bounded_norm_is_refused_and_not_rewritten():
    table = nn.Embedding(7, 4, max_norm=1.0)
    table.weight.requires_grad_(False)
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(8, 3))
    x, y = torch.randint(0, 7, (5, 2)), torch.randint(0, 3, (5,))
    before = contents(model)
    with pytest.raises(InputError, match=r"layer 0: .* frozen parameter '0.weight'"):
        noiseless(model, x, y)
    assert is_unchanged(model, before)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
        lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU(), nn.Linear(6, 3)),
    ],
    ids=["bookkeeping", "vmap"],
)
def test_frozen_parameters_are_used_as_they_are(build):
    model, (x, y) = build(), records()
    model[0].weight.requires_grad_(False)
    model[2].bias.requires_grad_(False)
    found = noiseless(model, x, y)
    expected = clipped(looped_gradients(copy.deepcopy(model), cross_entropy, x, y), 1.0)
    torch.testing.assert_close(found.flat.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_frozen_lstm_is_used_as_it_is():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.body(x)[0].mean(1))

    model = Head()
    model.body.requires_grad_(False)
    x, y = torch.randn(5, 6, 4), torch.randint(0, 3, (5,))
    expected = clipped(looped_gradients(copy.deepcopy(model), cross_entropy, x, y), 1.0)
    for engine in ENGINES.values():
        found = noiseless(model, x, y, engine=engine)
        torch.testing.assert_close(found.flat.double(), expected, rtol=1e-4, atol=1e-6)


def test_undefined_parameters_are_not_taken_for_written_ones():
    model, (x, y) = nn.Linear(4, 3), records()
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    found = noiseless(model, x, y, engine=ENGINES["vmap"])
    assert found.non_finite == len(x)


def private(model):
    return small_training(model, TensorDataset(*records(100)), batch_size=20, seed=None)


@pytest.mark.parametrize("name", STATE)
def test_make_private_tries_records_on_copies(name):
    """In evaluation mode too, and before anything else of the records is tried."""
    model = STATE[name]()
    before = contents(model)
    with pytest.raises(InputError, match="writes to its"):
        private(model)
    assert is_unchanged(model, before)


def test_make_private_leaves_what_only_evaluation_writes():
    model = Writes(lambda model, x: None if model.training else _in_place(model, x), mu=frozen())
    private(model).step()
    assert not bool(model.mu.any())


def test_make_private_makes_lazy_layers():
    model = nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 3))
    private(model).step()
    assert model[0].weight.shape == (6, 4)
    check_engine(nn.Sequential(nn.LazyLinear(3)), cross_entropy, *records())


def _left(model):
    return {
        name: set(vars(module)) | set(module._buffers) for name, module in model.named_modules()
    }


def _first_seen(model, x):
    if not hasattr(model, "centre"):
        model.centre = x.mean(0)


KEEPING = {
    "the batch": lambda m, x: setattr(m, "last", x),
    "a summary": lambda m, x: setattr(m, "seen", x.mean()),
    "what was first seen": _first_seen,
    "a list": lambda m, x: m.__dict__.setdefault("batches", []).append(x),
    "a dict": lambda m, x: m.__dict__.setdefault("cache", {}).update(features=(x, None)),
    "a buffer": lambda m, x: m.register_buffer("batch", x, persistent=False),
    "a count": lambda m, x: setattr(m, "ones", torch.ones(len(x))),
    "an array": lambda m, x: setattr(m, "array", x.numpy().copy()),
}
# A buffer that a pass registers is one that the next pass is seen to write to.
REFUSED = "{}: .*(keeps records in its attribute|writes to its buffer)"


@pytest.mark.parametrize("name", KEEPING)
def test_records_kept_on_a_module_are_refused_by_name(name):
    inner = Writes(KEEPING[name])
    model, (x, y) = nn.Sequential(nn.Linear(4, 4), inner), records()
    before = _left(model)
    # An array cannot be made under vmap, the others can.
    for engine in (
        ("auto", "bookkeeping") if name == "an array" else ("auto", "bookkeeping", "vmap")
    ):
        with pytest.raises(InputError, match=REFUSED.format("layer 1")):
            check_engine(model, cross_entropy, x, y, engine=engine)
        with pytest.raises(InputError, match=REFUSED.format("layer 1")):
            private(model)
    assert _left(model) == before


def test_what_was_there_before_is_put_back():
    """A plain tensor that is changed in place, a buffer that was None, a list that grows."""

    def write(model, x):
        model.plain.mul_(0.9).add_(0.1 * x.mean(0))
        model.empty = x
        model.batches.append(x)

    model, (x, y) = Writes(write, empty=None), records()
    model.plain, model.batches = torch.zeros(4), []
    with pytest.raises(InputError, match=REFUSED.format(".*")):
        check_engine(model, cross_entropy, x, y)
    assert not bool(model.plain.any())
    assert model.batches == []
    assert model.empty is None


def _positions(model, x):
    if not hasattr(model, "table"):
        model.table = torch.arange(x.shape[1]) / 4


def _by_length(model, x):
    model.__dict__.setdefault("tables", {}).setdefault(x.shape[1], torch.ones(x.shape[1]))


def _dropped(model, x):
    model.last = x
    model.last = None


CACHES = {
    "positions": _positions,
    "by length": _by_length,
    "a weight": lambda m, x: setattr(m, "scaled", m.layer.weight.detach() * 2),
    "dropped again": _dropped,
    "of Python": lambda m, x: vars(m).update(
        calls=vars(m).get("calls", 0) + 1, size=tuple(x.shape)
    ),
}


@pytest.mark.parametrize("name", CACHES)
def test_caches_without_records_are_allowed(name):
    model, (x, y) = Writes(CACHES[name]), records()
    expected = clipped(looped_gradients(nn.Sequential(model.layer), cross_entropy, x, y), 1.0)
    before = _left(model)
    choice = check_engine(model, cross_entropy, x, y)
    assert choice.engine.name == ("vmap" if name == "a weight" else "bookkeeping")
    assert _left(model) == before
    found = noiseless(model, x, y, engine=choice)
    torch.testing.assert_close(found.flat.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    "norm", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm]
)
def test_weights_made_of_parameters_are_allowed(norm):
    model, (x, y) = norm(nn.Linear(4, 3)), records()
    assert check_engine(model, cross_entropy, x, y).engine.name == "vmap"
    private(model).step()
