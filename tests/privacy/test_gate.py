"""The gate: tried once, pinned, remembered, and nothing left behind."""

import dataclasses

import pytest
import torch
from torch import nn

from repro.errors import InputError
from repro.models import build_model
from repro.privacy import DPSGD, DPSGDSettings, check_engine
from repro.privacy.dpsgd import DPSGDRun
from repro.privacy.engines.bookkeeping import BookKeeping
from repro.privacy.gate import choice as gate
from repro.privacy.gate import randomness as gate_randomness
from repro.privacy.gate.randomness import fixed_generators
from repro.privacy.private_step import seeded
from repro.randomness import RootSeed
from repro.runs.settings import ModelSettings
from tests.privacy.models import (
    PLACE,
    clipped,
    cross_entropy,
    looped_gradients,
    noiseless,
    take,
)
from tests.privacy.zoo import ZOO, batch_of

SETTINGS = DPSGDSettings(clip_norm=1.0, noise_multiplier=1.0, expected_batch=4, learning_rate=0.1)


def records(n=20):
    torch.manual_seed(0)
    return torch.randn(n, 3), torch.randint(0, 3, (n,))


@pytest.fixture
def tries(monkeypatch):
    """How often the engines are tried."""
    seen = []
    inside = gate._decide
    monkeypatch.setattr(gate, "_decide", lambda *given: seen.append(given) or inside(*given))
    return seen


def test_tried_once_for_a_run_and_once_for_a_model_and_loss(tries):
    model, (x, y) = nn.Linear(3, 3), records()
    run = DPSGDRun(SETTINGS, model.train(), cross_entropy, x, y, **PLACE)
    take(4, run)
    noiseless(model, x[:7], y[:7])
    assert len(tries) == 1
    noiseless(model, x, y, loss_fn=lambda o, t: cross_entropy(o, t))
    model.eval()
    noiseless(model, x, y)
    assert len(tries) == 3  # another loss, another mode


@pytest.mark.parametrize("name", ["sequence first", "positions on arange"])
def test_an_axis_as_long_as_the_batch_is_not_taken_for_it(name):
    """At every B, B = T included, the engine is the same and the sum is the loop's."""
    one = ZOO[name]
    torch.manual_seed(0)
    model = one.build()
    for size in range(1, 9):
        x, y = batch_of(one, size)
        found = noiseless(model, x, y)
        assert found.engine == "vmap"
        expected = clipped(looped_gradients(model, cross_entropy, x, y), 1.0)
        torch.testing.assert_close(found.flat.double(), expected, rtol=1e-4, atol=1e-6)
    assert "leading dimension" in found.engine_reason


def test_twins_do_not_hide_mixing():
    x, y = records(6)
    model = ZOO["batch centred"].build()
    model.a = nn.Linear(3, 3)
    for same in (2, 6):  # the first two alike, or all of them
        x[:same] = x[0].clone()
        with pytest.raises(InputError, match="whatever records stand beside it"):
            noiseless(model, x, y)
        with pytest.raises(InputError, match="whatever records stand beside it"):
            DPSGDRun(SETTINGS, model, cross_entropy, x, y, **PLACE)


def test_a_wrong_engine_is_found_and_the_reason_kept(monkeypatch):
    """Any rule gone wrong, here by 1 %, sends the run to vmap."""
    honest = BookKeeping.clipped_sum

    def wrong(self, batch):
        found = honest(self, batch)
        return dataclasses.replace(found, norms=found.norms * 1.01)

    monkeypatch.setattr(BookKeeping, "clipped_sum", wrong)
    x, y = records()
    report = DPSGD(SETTINGS).train(nn.Linear(3, 3), cross_entropy, x, y, steps=2, **PLACE)
    assert report.engine == "vmap"
    assert "norm" in report.diagnostics.engine_reason
    with pytest.raises(InputError, match="engine: got 'bookkeeping'"):
        check_engine(nn.Linear(3, 3), cross_entropy, x, y, engine="bookkeeping")


def test_an_engine_that_fails_in_a_step_is_left_for_good(monkeypatch):
    x, y = records()
    run = DPSGDRun(SETTINGS, nn.Linear(3, 3), cross_entropy, x, y, **PLACE)
    assert run._choice.engine.name == "bookkeeping"
    calls = []

    def failing(self, batch):
        calls.append(len(batch))
        raise RuntimeError("out of order")

    monkeypatch.setattr(BookKeeping, "clipped_sum", failing)
    take(3, run)
    assert len(calls) == 1
    report = run.report()
    assert report.engine == "vmap"
    assert "out of order" in report.diagnostics.engine_reason


def test_a_penalty_is_in_every_records_loss():
    """Its gradient is clipped with the record's; autograd says the same; nothing in ``.grad``."""
    model, (x, y) = nn.Linear(3, 3), records(5)

    def penalised(outputs, targets):
        return cross_entropy(outputs, targets) + model.weight.square().sum()

    found = noiseless(model, x, y, 1e6, penalised)
    assert "weight" in found.engine_reason
    assert all(p.grad is None for p in model.parameters())
    penalised(model(x), y).sum().backward()
    torch.testing.assert_close(found.gradient["weight"], model.weight.grad)


@pytest.mark.parametrize("engine", ["auto", "bookkeeping", "vmap"])
def test_nothing_is_left_in_grad_when_something_fails(engine):
    model, (x, y) = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), records(5)
    kept = [torch.full_like(p, 7.0) for p in model.parameters()]
    for p, value in zip(model.parameters(), kept, strict=True):
        p.grad = value.clone()

    def failing(outputs, targets):
        outputs.register_hook(lambda g: 1 / 0)
        return cross_entropy(outputs, targets)

    with pytest.raises((InputError, ZeroDivisionError)):
        noiseless(model, x, y, loss_fn=failing, engine=engine)
    for p, value in zip(model.parameters(), kept, strict=True):
        assert torch.equal(p.grad, value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_optimizer_that_fails_leaves_no_gradient(monkeypatch):
    x, y = records()
    run = DPSGDRun(SETTINGS, nn.Linear(3, 3), cross_entropy, x, y, **PLACE)
    monkeypatch.setattr(run._optimizer, "step", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.step()
    assert all(p.grad is None for p in run.model.parameters())


def test_frozen_batch_norm_trains_and_stays_frozen():
    x, y = records()
    norm = nn.BatchNorm1d(4)
    norm.running_mean.fill_(0.3)
    model = nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 3)).train()
    norm.eval()
    before = norm.weight.detach().clone(), norm.running_mean.clone()
    report = DPSGD(SETTINGS).train(model, cross_entropy, x, y, steps=3, **PLACE)
    assert report.engine == "bookkeeping"
    assert model.training
    assert not norm.training
    assert not torch.equal(norm.weight, before[0])
    assert torch.equal(norm.running_mean, before[1])
    with pytest.raises(InputError, match="BatchNorm1d"):
        DPSGD(SETTINGS).train(model.eval(), cross_entropy, x, y, steps=1, **PLACE)


def test_it_leaves_generators_and_the_model_as_they_were():
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, y = records()
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    check_engine(model, cross_entropy, x, y)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_devices_that_are_not_restored_are_not_reseeded(monkeypatch):
    """``torch.manual_seed`` would reset CUDA's generators, which are the user's."""

    def refuse(_seed: int) -> None:
        raise AssertionError("a CUDA generator was reseeded")

    for name in ("manual_seed", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    with pytest.raises(AssertionError, match="reseeded"):
        torch.manual_seed(0)
    with fixed_generators(torch.device("cpu")):
        pass
    with seeded(1):
        pass
    small = ModelSettings(name="dpresnet", width=4)
    build_model(small, in_channels=1, num_classes=2, seed=RootSeed.from_user(1))


class DrawsInABatch(nn.Linear):
    """Draws where several records come together, to no effect on any output."""

    def forward(self, x):
        if len(x) > 1:
            torch.rand(())
        return super().forward(x)


@pytest.mark.parametrize(("kind", "random"), [(nn.Linear, False), (DrawsInABatch, True)])
def test_random_numbers_are_fixed_where_some_are_drawn_and_nowhere_else(kind, random, monkeypatch):
    """The first record alone and a batch tell; the thirty passes after them go by that."""
    fixed, inside = [], gate_randomness.FixedRandomness.__enter__
    monkeypatch.setattr(
        gate_randomness.FixedRandomness, "__enter__", lambda mode: fixed.append(1) or inside(mode)
    )
    x, y = records()
    assert check_engine(kind(3, 3), cross_entropy, x, y).tried.random is random
    assert len(fixed) > 20 if random else len(fixed) == 2
