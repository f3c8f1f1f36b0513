"""No record contributes more than C, however its gradient cancels and in whatever type."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repro.privacy import Clipping
from repro.privacy.clipping import KINDS
from repro.privacy.engines import ENGINES, conv, linear
from tests.privacy.models import clipped, cross_entropy, looped_gradients, noiseless

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def weighted(outputs, targets):
    """A loss whose output gradients are the targets themselves, chosen by the test."""
    return (outputs * targets).flatten(1).sum(dim=1)


def cancelling(draw, shape, places, dtype):
    """Inputs alike at all places but for ``spread``, and weights that sum to about nothing."""
    torch.manual_seed(draw(st.integers(0, 10**6), "seed"))
    level = draw(st.sampled_from([1e-3, 1.0, 1000.0]), "level")
    spread = draw(st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 1.0]), "spread")
    common = torch.randn(1, *shape) if draw(st.booleans(), "direction") else torch.ones(1, *shape)
    x = level * (common + spread * torch.randn(places, *shape))
    signs = torch.where(torch.arange(places) % 2 == 0, 1.0, -1.0)
    return x.to(dtype), signs * draw(st.sampled_from([1e-4, 1.0, 30.0]), "weight")


def contribution(model, loss, x, y, clip_norm, kind, engine):
    # The engine itself, without the gate: the bound must not hang on a choice.
    result = noiseless(model, x, y, Clipping(clip_norm, kind), loss, engine=ENGINES[engine])
    assert torch.isfinite(result.flat).all()
    return float(result.flat.double().norm())


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=12)
@given(data=st.data())
def test_linear_on_cancelling_positions(engine, dtype, data):
    draw = data.draw
    places = draw(st.sampled_from([2, 3, 8, 40]), "places")
    x, weights = cancelling(draw, (5,), places, dtype)
    direction = torch.randn(6)
    y = (weights[:, None] * direction).to(dtype)
    kind, clip_norm = draw(st.sampled_from(KINDS)), draw(st.sampled_from([1e-3, 1.0]))
    model = nn.Linear(5, 6, bias=False).to(dtype)  # at every position: the ghost norm's case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_ghost_is_cheaper", lambda *sizes: True)
        size = contribution(model, weighted, x[None], y[None], clip_norm, kind, engine)
    assert size <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=12)
@given(data=st.data())
def test_convolution_on_cancelling_maps(dtype, data):
    draw = data.draw
    side = draw(st.sampled_from([4, 7]), "side")
    pixels, _ = cancelling(draw, (2,), side * side, dtype)
    x = pixels.T.reshape(1, 2, side, side)
    out = side - 2
    checkered = (torch.arange(out)[:, None] + torch.arange(out)) % 2 * 2.0 - 1
    y = (checkered * torch.randn(3, 1, 1)).to(dtype)[None]
    y = y - y.mean((2, 3), keepdim=True)
    model = nn.Conv2d(2, 3, 3, bias=False).to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "_ghost_is_cheaper", lambda call: True)
        size = contribution(model, weighted, x, y, 1e-2, "flat", "bookkeeping")
    assert size <= 1e-2 * (1 + 1e-5)


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), gap=st.sampled_from([0.0, 1e-7, 1e-4, 1.0]))
def test_embedding_on_opposite_gradients(seed, gap):
    torch.manual_seed(seed)
    x = torch.randint(0, 3, (1, 6)).repeat(1, 2)
    y = torch.randn(6, 4)
    y = torch.cat([y, -y * (1 + gap)])[None]
    size = contribution(nn.Embedding(3, 4), weighted, x, y, 1e-6, "flat", "bookkeeping")
    assert size <= 1e-6 * (1 + 1e-5)


def test_a_mean_of_a_thousand_is_clipped_as_exactly_as_any_other():
    """Many records at once, centred outputs, inputs of mean 1000: the sum is the exact one."""

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(16, 16, bias=False)

        def forward(self, x):
            h = self.lin(x)
            return h - h.mean(1, keepdim=True)

    torch.manual_seed(0)
    model, x = Centred(), 1000 + 10 * torch.randn(6, 4, 16)
    y = torch.randn(6, 4, 16)
    expected = clipped(looped_gradients(model, weighted, x, y), 1.0)
    for engine in ("auto", "vmap"):
        found = noiseless(model, x, y, 1.0, weighted, engine=engine)
        assert float((found.flat.double() - expected).norm()) <= 1e-3 * float(expected.norm())


@pytest.mark.parametrize("scale", [1e-12, 1e-22])
def test_squares_below_the_smallest_number_are_not_lost(scale):
    """‖x‖ = 1/scale · 1e-6 and ‖δ‖ = scale: the product is seen, each square is not."""
    x = torch.full((1, 2, 3), 1e-6 / scale)
    y = scale * torch.tensor([1.0, 2.0]).view(1, 2, 1).expand(1, 2, 4)
    layer = nn.Linear(3, 4, bias=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_ghost_is_cheaper", lambda *sizes: True)
        size = contribution(layer, weighted, x, y, 1e-7, "flat", "bookkeeping")
    assert size <= 1e-7 * (1 + 1e-5)


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_autocast_and_coarse_products_do_not_loosen_the_bound(engine):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 4))
    x, y = torch.randn(1, 2, 5, 5), torch.tensor([1])
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            size = contribution(model, cross_entropy, x, y, 0.01, "flat", engine)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert size <= 0.01 * (1 + 1e-5)
