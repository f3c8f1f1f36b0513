"""DP-SGD of several hospitals at once: the numbers, the noise and the ε of one after the other."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from repro.errors import InputError
from repro.federated import images
from repro.federated.training.private import PrivateTrainer
from repro.federated.vector import load_vector, to_vector
from repro.privacy import dpsgd, per_sample_gradients
from repro.privacy.batch import Batch
from repro.privacy.clipping import Clipping
from repro.privacy.dpsgd import DPSGDRun, DPSGDSettings
from repro.privacy.engines.stacked import RECORDS, stacked_sums
from repro.privacy.noise_key import noise_keys
from repro.privacy.together import train_together
from repro.random import RootSeed
from repro.runs.settings import RecordPrivacy
from tests.federated.test_stacked import SEED, hospitals, small_model

SIZES = [19, 12, 5]  # with batches of 3 on average: 7, 4 and 2 steps
CLIPPING = Clipping(0.5)


def losses(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


@pytest.fixture
def double(monkeypatch):
    usual = images.normalise
    monkeypatch.setattr(images, "normalise", lambda pixels: usual(pixels).double())


@pytest.fixture
def calls(monkeypatch):
    """What each step is given that decides privacy, in the one function that decides it."""
    noted = []
    inside = dpsgd.clipped_noisy_sum

    def noting(model, loss_fn, inputs, targets, **given):
        engine = given.pop("engine")
        noted.append((len(inputs), sorted(given.items(), key=str)))
        return inside(model, loss_fn, inputs, targets, engine=engine, **given)

    monkeypatch.setattr(dpsgd, "clipped_noisy_sum", noting)
    return noted


@pytest.mark.parametrize("clipping", ["flat", "per_layer", "automatic"])
def test_together_equals_one_after_the_other(clipping, double, calls):
    """In float64 to 1e-10, with equal reports; and every step of every hospital goes through
    ``clipped_noisy_sum`` with the batch size, bound, noise, key and counter it has alone."""
    settings = RecordPrivacy(epsilon=6.0, expected_batch=3, clip_norm=0.5, clipping=clipping)
    trainer = PrivateTrainer(settings, dict(enumerate(SIZES)), epochs=1, rounds=2)
    model, own = small_model(torch.float64), hospitals(SIZES)
    start = to_vector(model)
    alone, reports = [], []
    for hospital in own:
        load_vector(model, start)
        reports.append(trainer.train(model, hospital, seed=SEED, round_number=1))
        alone.append(to_vector(model))
    load_vector(model, start)
    before = list(calls)
    calls.clear()
    noise_keys.clear()  # two ways to the same sums, which differ by rounding: not two uses
    together, reports_together = trainer.train_together(model, own, seed=SEED, round_number=1)
    torch.testing.assert_close(together, torch.stack(alone), rtol=0, atol=1e-10)
    assert reports_together == reports
    assert sorted(calls, key=str) == sorted(before, key=str)
    assert len(calls) == 7 + 4 + 2
    assert torch.equal(to_vector(model), start)
    assert ((together - start).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize("sizes", [(0, 3), (1, 2 * RECORDS + 3, 5), (0, 0)])
def test_sums_are_those_of_the_definition(sizes):
    """Each model's Σ min(1, C/‖g_i‖)·g_i from its own per-sample gradients, empty batches and
    a record that is not finite included."""
    stream = torch.Generator().manual_seed(1)
    models, batches, expected = [], [], []
    for number, size in enumerate(sizes):
        torch.manual_seed(number)
        models.append(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)).double())
        inputs = torch.randn(size, 3, 2, 2, generator=stream, dtype=torch.float64)
        if size > 2:
            inputs[1] = float("nan")
        batches.append((inputs, torch.randint(0, 4, (size,), generator=stream)))
        gradients = per_sample_gradients(models[-1], losses, *batches[-1])
        flat = torch.cat([g.flatten(1) for g in gradients.values()], 1)
        finite = flat[flat.isfinite().all(1)]
        factors = (0.5 / finite.norm(dim=1)).clamp_max(1)
        expected.append((factors[:, None] * finite).sum(0))
    for one, right, size in zip(
        stacked_sums(models, losses, batches, CLIPPING), expected, sizes, strict=True
    ):
        torch.testing.assert_close(one.summed.total, right, rtol=0, atol=1e-12)
        assert (one.summed.records, one.summed.non_finite) == (size, int(size > 2))


def test_a_sum_is_good_for_its_own_batch_only():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    inputs, targets = torch.randn(3, 3, 2, 2), torch.tensor([0, 1, 2])
    (made,) = stacked_sums([model], losses, [(inputs, targets)], CLIPPING)
    batch = Batch(model, losses, inputs, targets, CLIPPING)
    assert made.clipped_sum(batch).records == 3
    with pytest.raises(ValueError, match="3 records for 2"):
        made.clipped_sum(replace(batch, inputs=inputs[:2], targets=targets[:2]))


def test_runs_that_do_not_fit_together_are_refused():
    def run(clip_norm, trainable=True, **more):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        model[1].bias.requires_grad_(trainable)
        settings = DPSGDSettings(clip_norm, 1.0, expected_batch=2, learning_rate=0.1, **more)
        inputs, targets = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 3])
        seed = RootSeed.from_user(0)
        return DPSGDRun(settings, model, losses, inputs, targets, seed=seed, hospital=0, round=1)

    with pytest.raises(InputError, match="one clipping rule"):
        train_together([run(1.0), run(2.0)], [1, 1])
    with pytest.raises(InputError, match="trainable parameters alone"):
        train_together([run(1.0), run(1.0, trainable=False)], [1, 1])
    with pytest.raises(InputError, match="chunk_size"):
        train_together([run(1.0), run(1.0, chunk_size=2)], [1, 1])
    trainer = PrivateTrainer(RecordPrivacy(engine="bookkeeping"), {0: 4, 1: 4}, epochs=1, rounds=1)
    with pytest.raises(InputError, match="auto or vmap"):
        trainer.train_together(small_model(), hospitals([4, 4]), seed=SEED, round_number=1)
