"""DP-SGD as a trainer: expected-batch divisor, empty batches, resume, and bad settings."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from repro.errors import InputError
from repro.privacy import DPSGD, DPSGDSettings
from repro.privacy.dpsgd import DPSGDRun
from repro.privacy.noise import gaussian_noise
from repro.randomness import RootSeed
from tests.privacy.models import (
    PLACE,
    clipped,
    cross_entropy,
    flat,
    looped_gradients,
    take,
    through_a_file,
)

SEED = RootSeed.from_user(5)
SETTINGS = DPSGDSettings(clip_norm=0.8, noise_multiplier=0.5, expected_batch=4, learning_rate=0.1)


def records(n=20):
    torch.manual_seed(0)
    return torch.randn(n, 3), torch.randint(0, 3, (n,))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))


def flipped(images, generator):
    signs = torch.randint(0, 2, (len(images), 1), generator=generator) * 2.0 - 1
    return images * signs


def run_of(settings=SETTINGS, model=None, augment=None, **place):
    x, y = records()
    place = {"seed": SEED, "party": 0, "round": 0, **place}
    return DPSGDRun(settings, model or network(), cross_entropy, x, y, augment=augment, **place)


def test_one_step_written_out():
    """Sampler, clipping, noise, divisor and update, each made by hand."""
    model = nn.Linear(3, 3)
    start, before = copy.deepcopy(model), flat(model)
    x, y = records()
    run = DPSGDRun(SETTINGS, model, cross_entropy, x, y, seed=SEED, party=3, round=7)
    run.step()
    drawn = run.plan.sampler.sample(SEED, party=3, round=7, step=0)
    assert 0 < len(drawn) != SETTINGS.expected_batch  # so that the divisor shows
    total = clipped(looped_gradients(start, cross_entropy, x[drawn], y[drawn]), 0.8)
    key = SEED.derive("dp-noise", 3)
    noise = gaussian_noise(12, std=0.5 * 0.8, seed=key, step=7 * 2**32)
    expected = before - 0.1 * (total.float() + noise) / 4
    torch.testing.assert_close(flat(model), expected)


def test_an_empty_batch_still_makes_a_noisy_step():
    """Opacus issues 161, 522, 530, 631. The rate makes about 13 of 40 batches empty."""
    settings = dataclasses.replace(SETTINGS, expected_batch=1)
    run = run_of(settings)
    empty = 0
    for step in range(40):
        drawn = run.plan.sampler.sample(SEED, party=0, round=0, step=step)
        before = flat(run.model)
        run.step()
        assert not torch.equal(before, flat(run.model))
        if len(drawn) == 0:
            empty += 1
            noise = gaussian_noise(len(before), std=0.4, seed=SEED.derive("dp-noise", 0), step=step)
            torch.testing.assert_close(flat(run.model), before - 0.1 * noise)
    assert empty >= 5
    assert run.report().steps == 40


VARIANTS = {
    "momentum": (dataclasses.replace(SETTINGS, momentum=0.9), None),
    "adam": (dataclasses.replace(SETTINGS, optimizer="adam", clipping="automatic"), None),
    "discrete": (dataclasses.replace(SETTINGS, noise="discrete_gaussian"), None),
    "views": (dataclasses.replace(SETTINGS, views=3), flipped),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_restored_run_gives_the_same_bits(variant, stop):
    """Sampler, noise counter, dropout, augmentation and optimizer all resume."""
    settings, augment = VARIANTS[variant]
    whole, first, second = (run_of(settings, augment=augment) for _ in range(3))
    take(6, whole)
    take(stop, first)
    state = copy.deepcopy(first.state_dict())
    first.step()  # what happens after the save must not leak into it
    torch.manual_seed(999)  # nor may the global generator matter
    second.load_state_dict(state)
    take(6 - stop, second)
    assert second.report() == whole.report()
    assert torch.equal(flat(second.model), flat(whole.model))


def test_state_survives_a_file():
    run, other = (run_of(VARIANTS["momentum"][0]) for _ in range(2))
    run.step()
    other.load_state_dict(through_a_file(run.state_dict()))
    take(1, run, other)
    assert torch.equal(flat(run.model), flat(other.model))


@pytest.mark.parametrize("other", [{"party": 1}, {"round": 1}, {"seed": RootSeed.from_user(6)}])
def test_a_state_of_another_run_is_refused(other):
    """Loading it would use another run's noise counter: double spending."""
    state = run_of().state_dict()
    with pytest.raises(InputError, match="state: got"):
        run_of(**other).load_state_dict(state)


def test_training_ignores_and_keeps_the_global_generator():
    one, two = run_of(), run_of()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    one.step()
    assert torch.equal(torch.rand(4), expected)
    two.step()  # from another global state: dropout masks are the step's own
    assert torch.equal(flat(one.model), flat(two.model))


def test_report_is_what_the_accountant_needs():
    x, y = records(21)
    model = network().eval()
    report = DPSGD(SETTINGS).train(model, cross_entropy, x, y, seed=SEED, party=0, round=0, steps=6)
    assert (report.steps, report.noise_multiplier, report.sample_rate) == (6, 0.5, 4 / 21)
    assert report.seed_source == "user seed"
    assert report.engine == "bookkeeping"
    assert not model.training
    assert SETTINGS.sampler(21).steps_per_epoch() == math.ceil(21 / 4)
    assert 0 < report.diagnostics.clipped <= report.diagnostics.drawn


def test_a_poisoned_record_never_reaches_the_model():
    x, y = records()
    x[3] = float("nan")
    model = network()
    settings = dataclasses.replace(SETTINGS, expected_batch=20)
    report = DPSGD(settings).train(model, cross_entropy, x, y, seed=SEED, party=0, round=0, steps=3)
    assert torch.isfinite(flat(model)).all()
    assert report.diagnostics.non_finite == 3


def test_it_learns_without_much_noise():
    """A separable problem: the loss falls, so the signs and scales of the update are right."""
    torch.manual_seed(0)
    x = torch.randn(200, 3)
    y = (x @ torch.tensor([1.0, -2.0, 0.5]) > 0).long()
    model = nn.Linear(3, 2)
    settings = DPSGDSettings(
        clip_norm=1.0, noise_multiplier=0.1, expected_batch=50, learning_rate=1.0, momentum=0.5
    )
    DPSGD(settings).train(model, cross_entropy, x, y, seed=SEED, party=0, round=0, steps=40)
    assert (model(x).argmax(1) == y).float().mean() > 0.95


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clip_norm", 0.0),
        ("expected_batch", 0),
        ("learning_rate", 0.0),
        ("optimizer", "lamb"),
        ("momentum", 1.0),
        ("views", 0),
        ("chunk_size", 0),
        ("clipping", "soft"),
        ("noise", "laplace"),
        ("engine", "fastest"),
    ],
)
def test_bad_settings_are_one_line(field, value):
    with pytest.raises(InputError, match=f"{field}.*: got"):
        dataclasses.replace(SETTINGS, **{field: value})


@pytest.mark.parametrize(
    ("settings", "place", "message"),
    [
        (dataclasses.replace(SETTINGS, expected_batch=21), {}, "expected_batch: got 21"),
        (dataclasses.replace(SETTINGS, views=2), {}, "views: got 2"),
        (SETTINGS, {"round": 2**32}, "round: got"),
        (SETTINGS, {"party": -1}, "party: got -1"),
    ],
)
def test_bad_runs_are_one_line_and_change_nothing(settings, place, message):
    model = network()
    before = flat(model)
    with pytest.raises(InputError, match=message):
        run_of(settings, model, **place)
    assert torch.equal(before, flat(model))


class Centred(nn.Module):
    """Layers that each treat records alone, and a subtraction between them that does not."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)

    def forward(self, x):
        return self.layer(x.flatten(1) - x.flatten(1).mean(0))


@pytest.mark.parametrize("engine", ["auto", "bookkeeping", "vmap"])
def test_a_model_that_mixes_records_is_refused(engine):
    inputs, targets = torch.randn(8, 3, 2, 2), torch.zeros(8, dtype=torch.long)
    settings = dataclasses.replace(SETTINGS, engine=engine, expected_batch=4)
    with pytest.raises(InputError, match="whatever records stand beside it"):
        DPSGDRun(settings, Centred(), cross_entropy, inputs, targets, **PLACE)


def test_dropout_and_a_broken_record_are_not_mistaken_for_mixing():
    inputs, targets = torch.randn(8, 12), torch.zeros(8, dtype=torch.long)
    inputs[0] = math.nan
    model = nn.Sequential(nn.Linear(12, 6), nn.Dropout(0.5), nn.Linear(6, 3))
    settings = dataclasses.replace(SETTINGS, expected_batch=4)
    DPSGDRun(settings, model, cross_entropy, inputs, targets, **PLACE)
    assert all(module.training for module in model.modules())


def test_a_step_counts_from_its_release_on_and_a_kept_state_stays_as_it_was():
    settings = dataclasses.replace(SETTINGS, optimizer="sgd", momentum=0.9)
    run = run_of(settings)
    run.step()
    kept = run.state_dict()
    momentum = [one["momentum_buffer"].clone() for one in kept["optimizer"]["state"].values()]
    run.step()
    held = [one["momentum_buffer"] for one in kept["optimizer"]["state"].values()]
    assert all(map(torch.equal, held, momentum))

    def raising(*_):
        raise KeyboardInterrupt

    run._optimizer.register_step_post_hook(raising)
    before = flat(run.model)
    with pytest.raises(KeyboardInterrupt):
        run.step()
    assert not torch.equal(before, flat(run.model))
    assert run.report().steps == run.steps == 3
