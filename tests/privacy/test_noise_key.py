"""The same noise on other data is refused; the same data again gives the same bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.privacy.clipping import Clipping
from repro.privacy.dpsgd import DPSGD, DPSGDRun, DPSGDSettings
from repro.privacy.mechanisms import ClipAndNoiseUpdate
from repro.privacy.noise_key import NoiseKeys, digest, new_run
from repro.privacy.step import clipped_noisy_sum
from repro.randomness import RootSeed

SETTINGS = DPSGDSettings(clip_norm=1.0, noise_multiplier=1.0, expected_batch=8, learning_rate=0.1)


def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def data(last: float = 0.0):
    inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(3))
    inputs[-1, -1] += last
    return inputs, torch.arange(8) % 3


def trained(seed, inputs, targets, *, party=0, round=1, steps=3, settings=SETTINGS):
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    DPSGD(settings).train(
        model, loss, inputs, targets, seed=seed, party=party, round=round, steps=steps
    )
    return model.weight.detach()


def test_other_data_under_the_same_key_is_refused_and_named():
    """One pixel of one record differs; every record is in every batch here."""
    seed = RootSeed.from_entropy()
    trained(seed, *data())
    with pytest.raises(InputError, match=r"noise key: got .*party 0, round 1, step 0"):
        trained(seed, *data(last=1e-3))


@pytest.mark.parametrize("other", [{"party": 1}, {"round": 2}])
def test_another_party_or_round_is_another_key(other):
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
        return DPSGDRun(SETTINGS, model, loss, *data(), seed=seed, party=0, round=1)

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
    first, _ = send(torch.ones(9), seed=seed, party=4, round=1)
    again, _ = send(torch.ones(9), seed=seed, party=4, round=1)
    assert torch.equal(first, again)
    with pytest.raises(InputError, match="noise key"):
        send(torch.zeros(9), seed=seed, party=4, round=1)


SCALES = {"clip_norm": 1.0, "noise_multiplier": 1.0}


def summed(inputs, targets, model=None, *, seed=5, step=2, **more):
    torch.manual_seed(0)
    model = nn.Linear(5, 3) if model is None else model
    options = SCALES | more
    return clipped_noisy_sum(model, loss, inputs, targets, seed=seed, step=step, **options).flat


def test_a_single_sum_refuses_whatever_makes_it_another_one():
    """The sum decides: records, parameters, loss and bound; then σ and the kind of noise."""
    first = summed(*data())
    assert torch.equal(summed(*data()), first)
    torch.manual_seed(1)
    others = [
        {"model": nn.Linear(5, 3)},
        {"clip_norm": 0.5},
        {"clip_norm": Clipping(1.0, "automatic")},
        {"noise_multiplier": 1.5},
        {"noise": "discrete_gaussian"},
    ]
    for other in others:
        with pytest.raises(InputError, match=r"noise key: got 'step 2 on other data"):
            summed(*data(), **other)
    with pytest.raises(InputError, match="noise key"):
        summed(*data(last=1e-3))
    with pytest.raises(InputError, match="noise key"):
        summed(*(part[:7] for part in data()))
    for free in ({"seed": 6}, {"step": 3}, {"noise_multiplier": 0.0}):
        summed(*data(last=1e-3), **free)
    assert torch.equal(summed(*data()), first)


def test_a_record_moved_to_another_embedding_row_is_other_data():
    """Its gradient has the same numbers, in another place."""
    model = nn.Sequential(nn.Embedding(40, 64), nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.ones(40, 64))
    targets = torch.zeros(1, dtype=torch.int64)
    summed(torch.tensor([[3]]), targets, model)
    with pytest.raises(InputError, match="noise key"):
        summed(torch.tensor([[5]]), targets, model)


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
        keys.use("test", seed, b"a", party=0, round=1, step=step)
    assert len(keys) == 10
    keys.use("test", seed, b"b", party=0, round=1, step=3)  # long forgotten
    with pytest.raises(InputError):
        keys.use("test", seed, b"b", party=0, round=1, step=24)


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
    assert digest(values, note="σ") != before
    assert digest(values[1:].clone()) == digest(values[1:])  # wherever in memory


@settings(max_examples=100)
@given(
    size=st.integers(2, 5000), places=st.tuples(st.integers(0, 4999), st.integers(0, 4999)),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_exchanged_elements_change_the_digest(size, places, seed):
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    i, j = (place % size for place in places)
    changed = values.clone()
    changed[i], changed[j] = values[j], values[i]
    assert (digest(changed) == digest(values)) == torch.equal(changed, values)
