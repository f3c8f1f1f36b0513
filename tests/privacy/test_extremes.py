"""Mixing that only an extreme record, or an extreme gradient, sets off."""

import pytest
import torch
from torch import nn

from repro.errors import InputError
from repro.privacy import check_engine
from repro.privacy.batch import Batch
from repro.privacy.clipping import Clipping
from repro.privacy.engines import ENGINES
from repro.privacy.gate.disturbance import disturbance
from repro.privacy.gate.probe import Probe
from tests.privacy.models import cross_entropy, noiseless, squared_error


class Between(nn.Module):
    """Two layers and a function of the batch between them."""

    def __init__(self, function, inputs=4):
        super().__init__()
        self.a, self.b, self._function = nn.Linear(inputs, 8), nn.Linear(8, 3), function

    def forward(self, x):
        return self.b(self._function(torch.tanh(self.a(x)) + self.a(x)))


def records(n=20):
    torch.manual_seed(1)
    return torch.randn(n, 4), torch.randint(0, 3, (n,))


def _skipped(h):
    return h * 0 if bool(h.detach().abs().max() > 1e3) else h


def _masked(h):
    return torch.where(h.detach().abs().max() > 1e3, h * 0, h)


def _clamped(h):
    limit = torch.where(h.isinf().any(), 1e-2, 1e9)
    return torch.minimum(torch.maximum(h, -limit), limit)


def _leaking(h):
    return h + 1e-7 * h.mean(0)


def _undefined(h):
    return torch.where(h.isnan().any(), 0 * h.nan_to_num(), h)


def _shifted(h):
    return (h - h.max()) + h.max()


FORWARD = [_skipped, _masked, _clamped, _leaking, _undefined, _shifted]


def difference(model, loss, x, y, bad_x, bad_y, engine):
    """How far one more record moves the clipped sum; the sum of C = 1 may move by 1."""
    more = torch.cat([x, bad_x[None]]), torch.cat([y, bad_y[None]])
    one, other = (noiseless(model, *batch, loss_fn=loss, engine=engine) for batch in ((x, y), more))
    return float((one.flat - other.flat).norm())


@pytest.mark.parametrize("function", FORWARD)
def test_a_guard_for_the_batch_is_left_to_vmap_or_refused(function):
    x, y = records()
    model = Between(function)
    with pytest.raises(InputError, match=r"depends on extreme records beside it"):
        check_engine(model, cross_entropy, x, y, engine="bookkeeping")
    if function is _skipped:  # there is no vmap over a branch
        with pytest.raises(InputError, match=r"one that torch.func can differentiate"):
            check_engine(model, cross_entropy, x, y)
        return
    choice = check_engine(model, cross_entropy, x, y)
    assert choice.engine.name == "vmap"
    for value in (1e6, 1e30, float("inf"), float("nan")):
        bad = torch.full((4,), value)
        assert difference(model, cross_entropy, x, y, bad, y[0], choice) <= 1 + 1e-5


def _by_norm(g):
    return g * (100 / (g.norm() + 1e-9)).clamp(max=1)


def _zero_if_undefined(g):
    return torch.where(g.isfinite().all(), g, 0 * g.nan_to_num())


def _centred(g):
    return g - 1e-8 * g.mean(0)


def _hooked(hook):
    def function(h):
        if h.requires_grad:
            h.register_hook(hook)
        return h

    return function


@pytest.mark.parametrize("hook", [_by_norm, _zero_if_undefined, _centred])
@pytest.mark.parametrize("loss", [cross_entropy, squared_error])
def test_a_backward_hook_over_the_batch_is_left_to_vmap(hook, loss):
    x, y = records()
    y = y if loss is cross_entropy else torch.randn(20, 3)
    model = Between(_hooked(hook))
    with pytest.raises(InputError, match=r"engine: got 'bookkeeping'.*beside it"):
        check_engine(model, loss, x, y, engine="bookkeeping")
    choice = check_engine(model, loss, x, y)
    assert choice.engine.name == "vmap"
    assert "beside it" in choice.reason
    if loss is squared_error:
        bad = torch.full((3,), 1e6)
        assert difference(model, loss, x, y, x[0], bad, choice) <= 1 + 1e-5


def test_tokens_are_tried_with_extreme_gradients_too():
    """Inputs and targets are indices, so only the gradients can be extreme."""
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), Between(_hooked(_by_norm), 8))
    x, y = torch.randint(0, 7, (6, 2)), torch.randint(0, 3, (6,))
    assert check_engine(model, cross_entropy, x, y).engine.name == "vmap"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("views", [1, 2])
def test_ordinary_models_are_undisturbed(dtype, views):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.LayerNorm(64),
        nn.Linear(64, 3),
    ).to(dtype)
    shape = (3, 2, 4, 4) if views == 1 else (3, views, 2, 4, 4)
    for targets in (torch.randint(0, 3, (3,)), torch.randn(3, 3).to(dtype)):
        loss = squared_error if targets.is_floating_point() else cross_entropy
        batch = Batch(model, loss, torch.randn(shape).to(dtype), targets, Clipping(1.0), views)
        probe = Probe.of(batch, random=True)
        assert disturbance(ENGINES["bookkeeping"], probe, {dtype}) is None
