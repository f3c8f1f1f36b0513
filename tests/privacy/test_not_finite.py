"""A record with NaN or Inf in its input adds nothing, also where its loss does not see it."""

import dataclasses

import pytest
import torch
from torch import nn

from repro.privacy import Clipping, check_engine
from repro.privacy.engines import ENGINES, conv, linear
from repro.privacy.engines.base import ClippedSum, NotFinite
from repro.privacy.engines.bookkeeping import _Ledger
from tests.privacy.models import cross_entropy, noiseless

BAD = [float("nan"), float("inf"), -float("inf")]


class Filled(nn.Module):
    """A first layer whose undefined outputs are made up, so that they have no gradient."""

    def __init__(self, layer, size, channels):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(channels, 3)
        self.size = size

    def forward(self, x):
        h = torch.nan_to_num(self.layer(x), posinf=0.0, neginf=0.0)
        if x.ndim == 2:
            return self.head(h)
        return self.head(h.flatten(2).mean(2) if x.ndim > 3 else h.mean(1))


MODELS = {
    "linear": (lambda: Filled(nn.Linear(5, 4), (5,), 4)),
    "linear at positions": (lambda: Filled(nn.Linear(5, 4), (3, 5), 4)),
    "conv2d": (lambda: Filled(nn.Conv2d(2, 4, 3, padding=1), (2, 5, 5), 4)),
    "conv2d stride groups": (lambda: Filled(nn.Conv2d(2, 4, 3, stride=2, groups=2), (2, 5, 5), 4)),
    "conv3d": (lambda: Filled(nn.Conv3d(2, 4, 2), (2, 3, 3, 3), 4)),
    "group norm": (lambda: Filled(nn.GroupNorm(1, 2), (2, 5, 5), 2)),
    "layer norm": (lambda: Filled(nn.LayerNorm(5), (5,), 5)),
    "frozen batch norm": (lambda: Filled(nn.BatchNorm2d(2).eval(), (2, 5, 5), 2)),
}


@pytest.mark.parametrize("clipping", ["flat", "per_layer", "automatic"])
@pytest.mark.parametrize("ghost", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_undefined_inputs_without_a_gradient_are_dropped(name, ghost, clipping, monkeypatch):
    """Every entry or one of them; each engine's sum is the one without that record."""
    monkeypatch.setattr(linear, "_ghost_is_cheaper", lambda *sizes: ghost)
    monkeypatch.setattr(conv, "_ghost_is_cheaper", lambda call: ghost and call.x.ndim == 4)
    torch.manual_seed(0)
    model = MODELS[name]()
    x, y = torch.randn(4, *model.size), torch.randint(0, 3, (4,))
    clipping = Clipping(1.0, clipping)
    for engine in ENGINES.values():
        without = noiseless(model, x[:3], y[:3], clipping, engine=engine)
        for value in BAD:
            for places in (..., (0,) * len(model.size)):
                x[3] = 0.5
                x[3][places] = value
                found = noiseless(model, x, y, clipping, engine=engine)
                assert found.non_finite == 1
                torch.testing.assert_close(found.flat, without.flat)


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_an_infinite_feature_in_a_logistic_regression(value):
    """The sigmoid is 1 there, so the loss is perfect and its gradient 0."""
    loss = nn.BCEWithLogitsLoss(reduction="none")
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    nn.init.ones_(model[0].weight)
    x, y = torch.randn(5, 3), torch.randint(0, 2, (5,)).float()
    without = noiseless(model, x[:4], y[:4], loss_fn=loss)
    assert without.engine == "bookkeeping"
    x[4, 1], y[4] = value, float(value > 0)
    found = noiseless(model, x, y, loss_fn=loss)
    torch.testing.assert_close(found.flat, without.flat)


def test_an_embedding_whose_gradient_is_undefined_is_dropped():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, 3))

    def undefined_for_two(outputs, targets):
        return cross_entropy(outputs, targets) * torch.where(targets == 2, torch.nan, 1.0)

    x, y = torch.randint(0, 7, (4, 2)), torch.tensor([0, 1, 0, 2])
    how = {"loss_fn": undefined_for_two}
    for engine in ENGINES.values():
        without = noiseless(model, x[:3], y[:3], **how, engine=engine)
        found = noiseless(model, x, y, **how, engine=engine)
        assert found.non_finite == 1
        torch.testing.assert_close(found.flat, without.flat)


def test_a_sum_that_is_not_finite_is_not_released(monkeypatch):
    """The last net: ``auto`` takes the reference engine, an engine asked for raises."""
    for value in BAD:
        with pytest.raises(NotFinite):
            ClippedSum(torch.tensor([1.0, value]), torch.ones(2), 0, 0).finite()
    model, x, y = nn.Linear(3, 3), torch.randn(5, 3), torch.randint(0, 3, (5,))
    expected = noiseless(model, x, y, engine="vmap")
    pinned = {
        name: check_engine(model, cross_entropy, x, y, engine=name)
        for name in ("auto", "bookkeeping")
    }
    honest = _Ledger.clipped_sum

    def leaking(self, clipping):
        found = honest(self, clipping)
        return dataclasses.replace(found, total=found.total * torch.nan)

    monkeypatch.setattr(_Ledger, "clipped_sum", leaking)
    found = noiseless(model, x, y, engine=pinned["auto"])
    assert found.engine == "vmap"
    assert torch.equal(found.flat, expected.flat)
    with pytest.raises(NotFinite):
        noiseless(model, x, y, engine=pinned["bookkeeping"])


@pytest.mark.parametrize("kind", ["flat", "per_layer", "automatic"])
def test_the_factor_of_a_record_that_is_not_finite_is_zero(kind):
    """In every group, whatever the record's other norms; the fused kernel goes by it alone."""
    bad = [[float("nan"), 1.0], [1.0, float("inf")], [float("inf")] * 2, [3e38, 3e38]]
    squared = torch.tensor([[4.0, 0.25], *bad, [0.0, 0.0]])
    factors, finite, clipped = Clipping(1.0, kind).factors(squared)
    assert finite.tolist() == [True, *[False] * len(bad), True]
    assert factors[1:-1].tolist() == [[0.0, 0.0]] * len(bad)
    assert bool((factors[[0, -1]] > 0).all())
    assert clipped.tolist() == [True, *[False] * len(bad), False]
