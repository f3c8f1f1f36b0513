"""Engines give the clipped sum of float64 loops, for odd layers, chunks and records."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repro.errors import InputError
from repro.models import DPResNet
from repro.privacy import Clipping
from repro.privacy.engines import ENGINES, ClippedSum, Unsupported, conv, linear
from tests.privacy.models import (
    Bare,
    Conv,
    InPlace,
    Stray,
    Tokens,
    Twice,
    clipped,
    cross_entropy,
    looped_gradients,
    noiseless,
)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(dim=1)


def assert_engine_matches_loops(model, x, y, engine="bookkeeping", views=1, tolerance=1e-5):
    """At a clip norm that clips about half of the records."""
    rows = looped_gradients(model, cross_entropy, x, y, views)
    clip_norm = float(rows.norm(dim=1).median()) * 1.0001
    expected = clipped(rows, clip_norm)
    result = noiseless(model, x, y, clip_norm, engine=engine, views=views)
    assert result.engine == getattr(engine, "name", engine)
    assert (result.flat.double() - expected).norm() <= tolerance * expected.norm()
    assert result.clipped == int((rows.norm(dim=1) > clip_norm).sum())
    assert result.non_finite == 0


@settings(max_examples=60)
@given(data=st.data())
def test_convolutions_of_any_shape(data):
    """Conv1d–3d over kernels, strides, paddings, dilations, groups, biases, views and types.

    Most without the gate's tries, which take twenty times as long as the sum.
    """
    draw = data.draw
    dims = draw(st.integers(1, 3), "dims")
    groups = draw(st.sampled_from([1, 2]), "groups")
    sizes = [draw(st.integers(4, 7), "size") for _ in range(dims)]
    model = Conv(
        dims,
        groups=groups,
        inputs=groups * draw(st.integers(1, 3), "inputs"),
        bias=draw(st.booleans(), "bias"),
        kernel_size=tuple(draw(st.integers(1, 3), "kernel") for _ in range(dims)),
        stride=draw(st.integers(1, 2), "stride"),
        padding=draw(st.integers(0, 1), "padding"),
        dilation=draw(st.integers(1, 2), "dilation") if min(sizes) >= 5 else 1,
    )
    torch.manual_seed(draw(st.integers(0, 99), "seed"))
    records, views = draw(st.integers(1, 5), "records"), draw(st.sampled_from([1, 1, 2]), "views")
    double = draw(st.booleans(), "double")
    model = model.double() if double else model
    # Whatever the cost model thinks: ghost norms and every way to whole gradients.
    ways = {"one by one": conv._one_by_one, "group": conv._by_grouping}
    if dims == 2:
        ways["unfold"] = conv._by_unfolding
    method = draw(st.sampled_from(["ghost", *ways]), "method")
    shape = (records, *([views] if views > 1 else []), model.conv.in_channels, *sizes)
    x = torch.randn(shape, dtype=torch.float64 if double else torch.float32)
    y = torch.randint(0, 3, (records,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "_ghost_is_cheaper", lambda call: dims == 2 and method == "ghost")
        patch.setattr(conv, "_method", lambda call: ways.get(method, conv._one_by_one))
        engine = draw(st.sampled_from([*[ENGINES["bookkeeping"]] * 7, "bookkeeping"]), "engine")
        tolerance = 1e-10 if double else 1e-5
        assert_engine_matches_loops(model, x, y, engine, views, tolerance)


@pytest.mark.parametrize("ghost", [True, False])
@pytest.mark.parametrize("views", [1, 3])
def test_linear_layers_on_sequences(ghost, views, monkeypatch):
    monkeypatch.setattr(linear, "_ghost_is_cheaper", lambda *sizes: ghost)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 3), Mean())
    shape = (4, *([views] if views > 1 else []), 5, 3)
    assert_engine_matches_loops(model, torch.randn(shape), torch.randint(0, 3, (4,)), views=views)


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
@pytest.mark.parametrize(
    ("build", "shape"),
    [(Tokens, None), (lambda: Tokens(0), None), (Twice, (6, 3, 4, 4)), (InPlace, (6, 3, 7, 7))],
    ids=["tokens", "padding", "shared", "in-place"],
)
def test_other_layers(build, shape, engine):
    torch.manual_seed(0)
    x = torch.randn(shape) if shape else torch.randint(0, 11, (6, 9))
    assert_engine_matches_loops(build(), x, torch.randint(0, 3, (6,)), engine)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dpresnet(memory_format):
    torch.manual_seed(0)
    model = DPResNet(width=16).to(memory_format=memory_format)
    x = torch.randn(5, 3, 28, 28).to(memory_format=memory_format)
    assert_engine_matches_loops(model, x, torch.randint(0, 8, (5,)))


@pytest.mark.parametrize("kind", ["flat", "per_layer", "automatic"])
def test_engines_and_chunk_sizes_agree_under_every_clipping(kind):
    torch.manual_seed(0)
    model = DPResNet(width=8)
    x, y = torch.randn(7, 3, 12, 12), torch.randint(0, 8, (7,))
    clipping = Clipping(0.5, kind)
    whole = noiseless(model, x, y, clipping, engine="vmap")
    for engine, chunk_size in itertools.product(("bookkeeping", "vmap"), (None, 1, 3, 7)):
        part = noiseless(model, x, y, clipping, engine=engine, chunk_size=chunk_size)
        assert (part.flat - whole.flat).norm() <= 1e-5 * whole.flat.norm()
        assert (part.clipped, part.records) == (whole.clipped, 7)


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_non_finite_record_contributes_exactly_zero(engine, poison):
    torch.manual_seed(0)
    model = Conv()
    x, y = torch.randn(5, 4, 6, 6), torch.randint(0, 3, (5,))
    bad = x.clone()
    bad[2, 0, 1, 1] = poison
    result = noiseless(model, bad, y, 0.3, engine=engine)
    keep = torch.tensor([0, 1, 3, 4])
    expected = noiseless(model, x[keep], y[keep], 0.3, engine=engine)
    assert result.non_finite == 1
    torch.testing.assert_close(result.flat, expected.flat)


def test_auto_says_which_and_falls_back():
    x, y = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    assert noiseless(nn.Linear(3, 3), x, y, 1.0).engine == "bookkeeping"
    for model in (Bare(), Stray()):
        result = noiseless(model, x, y, 1.0)
        assert result.engine == "vmap"
        expected = clipped(looped_gradients(model, cross_entropy, x, y), 1.0)
        torch.testing.assert_close(result.flat.double(), expected, rtol=1e-5, atol=1e-6)


class Mangles(nn.Module):
    """Changes a layer's input in place after the layer has read it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x) * 1.0
        y = self.second(x)
        x.add_(1)
        return y + x


class Reshapes(nn.Module):
    """Runs a layer on something whose leading dimension is not the records."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x.T).T


class Folds(nn.Module):
    """Folds two positions into the records, position first: their order is no longer known."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x):
        pairs = torch.stack([x[:, :2], x[:, 1:]])
        return self.layer(pairs.flatten(0, 1)).unflatten(0, (2, len(x))).sum(0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Folds(), "layer layer: .*leading dimension"),
        (Bare(), "no rule for the layer of parameter scale"),
        (Stray(), "parameter layer.weight: .*outside its own layer"),
        (Mangles(), "layer second: .*in place"),
        (Reshapes(), "layer layer: .*leading dimension"),
    ],
)
def test_what_bookkeeping_cannot_do_is_refused_by_name(model, message):
    x, y = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(InputError, match=message):
        noiseless(model, x, y, 1.0, engine="bookkeeping")


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_the_model_is_left_as_it_was(engine):
    torch.manual_seed(0)
    model = Conv()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noiseless(model, torch.randn(4, 4, 6, 6), torch.zeros(4, dtype=torch.int64), 1.0, engine=engine)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_norm": 0.0}, "clip_norm: got 0.0"),
        ({"clip_norm": float("inf")}, "clip_norm: got inf"),
        ({"step": 2**64}, "step: got"),
        ({"engine": "fastest"}, "engine: got 'fastest'"),
        ({"chunk_size": 0}, "chunk_size: got 0"),
    ],
)
def test_bad_settings_are_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        noiseless(nn.Linear(3, 3), torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), **changes)
    assert "\n" not in str(caught.value)


class Loop:
    """A third engine: the reference's sums, one record after the other, times ``factor``."""

    name, default_chunk, factor, calls = "loop", 8, 1.0, 0

    def reason_against(self, model):
        return None

    def clipped_sum(self, batch):
        self.calls += 1
        found = [ENGINES["vmap"].clipped_sum(one) for one in batch.chunks(1)]
        norms = torch.cat([one.norms for one in found])
        total = self.factor * sum(one.total for one in found)
        counts = (sum(getattr(one, name) for one in found) for name in ("non_finite", "clipped"))
        return ClippedSum(total, norms, *counts)


def test_an_engine_that_is_entered_is_the_one_that_is_used(monkeypatch):
    model, x, y = nn.Linear(6, 3), torch.randn(5, 6), torch.randint(0, 3, (5,))
    right, wrong = Loop(), Loop()
    monkeypatch.setitem(ENGINES, "loop", right)
    assert_engine_matches_loops(model, x, y, "loop")
    assert right.calls == 3  # two tries of the gate, then the sum
    wrong.factor = 1.1
    monkeypatch.setitem(ENGINES, "loop", wrong)
    with pytest.raises(Unsupported, match="vmap or auto for this model: the gradient of"):
        noiseless(nn.Linear(6, 3), x, y, 1.0, engine="loop")
