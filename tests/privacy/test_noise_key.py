"""The same noise on other data is refused; the same data again gives the same bits."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.privacy.dpsgd import DPSGD, DPSGDRun, DPSGDSettings
from repro.privacy.mechanisms import ClipAndNoiseUpdate
from repro.privacy.noise_key import NoiseKeys, digest, new_run
from repro.random import RootSeed

SETTINGS = DPSGDSettings(clip_norm=1.0, noise_multiplier=1.0, expected_batch=8, learning_rate=0.1)


def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def data(last: float = 0.0):
    inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    inputs[-1, -1] += last
    return inputs, torch.arange(8) % 3


def trained(seed, inputs, targets, *, hospital=0, round=1, steps=3, settings=SETTINGS):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    DPSGD(settings).train(
        model, loss, inputs, targets, seed=seed, hospital=hospital, round=round, steps=steps
    )
    return model.weight.detach()


def test_other_data_under_the_same_key_is_refused_and_named():
    """One pixel of one record differs; every record is in every batch here."""
    seed = RootSeed.from_entropy()
    trained(seed, *data())
    with pytest.raises(InputError, match=r"noise key: got .*hospital 0, round 1, step 0"):
        trained(seed, *data(last=1e-3))


@pytest.mark.parametrize("other", [{"hospital": 1}, {"round": 2}])
def test_another_hospital_or_round_is_another_key(other):
    seed = RootSeed.from_entropy()
    trained(seed, *data())
    trained(seed, *data(last=1.0), **other)


def test_the_same_data_again_gives_the_same_bits():
    seed = RootSeed.from_entropy()
    assert torch.equal(trained(seed, *data()), trained(seed, *data()))


def test_a_resumed_round_goes_on_with_its_own_keys():
    seed = RootSeed.from_entropy()
    whole = trained(seed, *data())

    def run(model):
        return DPSGDRun(SETTINGS, model, loss, *data(), seed=seed, hospital=0, round=1)

    torch.manual_seed(0)
    first = run(nn.Linear(5, 3))
    first.step()
    second = run(nn.Linear(5, 3))
    second.load_state_dict(first.state_dict())
    second.step()
    second.step()
    assert torch.equal(second.model.weight, whole)


def test_updates_under_the_same_key_are_refused_too():
    seed, send = RootSeed.from_entropy(), ClipAndNoiseUpdate(1.0, 1.0)
    first, _ = send(torch.ones(9), seed=seed, hospital=4, round=1)
    again, _ = send(torch.ones(9), seed=seed, hospital=4, round=1)
    assert torch.equal(first, again)
    with pytest.raises(InputError, match="noise key"):
        send(torch.zeros(9), seed=seed, hospital=4, round=1)


def test_only_a_public_seed_starts_anew():
    public, private = RootSeed.from_user(77), RootSeed.from_entropy()
    for seed in (public, private):
        trained(seed, *data(), steps=1)
    new_run(private)
    with pytest.raises(InputError, match="noise key"):
        trained(private, *data(last=1.0), steps=1)
    new_run(public)
    trained(public, *data(last=1.0), steps=1)


def test_memory_is_bounded_and_the_oldest_goes_first():
    keys, seed = NoiseKeys(most=10), RootSeed.from_user(1)
    for step in range(25):
        keys.use("test", seed, b"a", hospital=0, round=1, step=step)
    assert len(keys) == 10
    keys.use("test", seed, b"b", hospital=0, round=1, step=3)  # long forgotten
    with pytest.raises(InputError):
        keys.use("test", seed, b"b", hospital=0, round=1, step=24)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_any_changed_element_changes_the_digest(dtype):
    values = (torch.arange(4 * 999) % 251).reshape(4, 999).to(dtype)
    before = digest(values)
    for place in (0, 1, 500, 997, 998):
        changed = values.clone()
        changed[3, place] += 1
        assert digest(changed) != before
    assert digest(values.clone()) == before
    assert digest(values[[1, 0, 2, 3]]) != before
    assert digest(values[:0]) != before
