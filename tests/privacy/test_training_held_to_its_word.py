"""``make_private`` against its own surroundings: loaders that mix, states that live on, copies that
would share noise, exceptions between a release and its account."""

import copy
import os
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate

from repro.errors import InputError
from tests.privacy.test_private_training import RECORDS, data, network, planned, weights


def mixing(batch):
    inputs, targets = default_collate(batch)
    return (inputs - inputs.mean(0)) / 10 + inputs.roll(1, 0), targets


def test_a_collate_function_cannot_mix_records():
    """What it makes of a record is what it makes of that record alone."""
    fetch = planned(
        records=DataLoader(data(), batch_size=10, collate_fn=mixing)
    )._source.records.fetch
    together, _ = fetch(torch.tensor([3, 1, 4]))
    for row, index in zip(together, [3, 1, 4], strict=True):
        assert torch.equal(row, fetch(torch.tensor([index]))[0][0])
        assert torch.equal(row, mixing([data()[index]])[0][0])
    assert fetch(torch.tensor([], dtype=torch.int64))[0].shape == (0, 4)


class Lengths(Dataset):
    def __len__(self):
        return RECORDS

    def __getitem__(self, index):
        return torch.ones(1 + index % 2), index % 2


def padded(batch):
    inputs, targets = zip(*batch, strict=True)
    return nn.utils.rnn.pad_sequence(list(inputs), batch_first=True), torch.tensor(targets)


def test_padding_to_a_batchs_longest_is_refused():
    with pytest.raises(InputError, match="pad in the Dataset"):
        planned(
            model=nn.Linear(1, 2), records=DataLoader(Lengths(), batch_size=4, collate_fn=padded)
        )


def test_a_record_twice_behind_any_nesting_is_refused():
    whole = data()
    for doubled in (
        ConcatDataset([whole, whole]),
        ConcatDataset([whole, Subset(whole, [3])]),
        Subset(ConcatDataset([whole, data(seed=1)]), [0, 1, 61, 0]),
        Subset(Subset(whole, [5, 5, 6]), [0, 1, 2]),
    ):
        with pytest.raises(InputError, match="names a record twice"):
            planned(records=doubled, target_delta=1e-4)
    planned(records=ConcatDataset([whole, data(seed=1)]))
    planned(records=Subset(Subset(whole, range(40)), range(20)))


def test_a_kept_state_does_not_go_on_with_the_training():
    """Nor with the one it was loaded into."""
    model = network()
    training = planned(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    training.step()
    kept = training.state_dict()
    before = copy.deepcopy(kept)
    training.step()
    other = network()
    resumed = planned(other, torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9))
    resumed.load_state_dict(kept)
    resumed.step()
    assert torch.equal(weights(resumed), weights(training))
    for name, tensor in before["model"].items():
        assert torch.equal(kept["model"][name], tensor)
    for index, held in before["optimizer"]["state"].items():
        assert held["momentum_buffer"].abs().max() > 0
        now = kept["optimizer"]["state"][index]["momentum_buffer"]
        assert torch.equal(now, held["momentum_buffer"])


def test_a_state_that_does_not_fit_changes_nothing():
    one, two = network(), network()
    groups = [{"params": [p]} for p in one.parameters()]
    training = planned(one, torch.optim.SGD(groups, lr=0.1))
    training.step()
    other = planned(two, torch.optim.SGD(two.parameters(), lr=0.1))
    start = weights(other)
    with pytest.raises(InputError, match="state"):
        other.load_state_dict(training.state_dict())
    assert torch.equal(weights(other), start)
    assert (other.steps, other.epsilon()) == (0, 0.0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_step_counts_from_its_release_on_whatever_follows(error):
    """The weights have changed, then the optimizer's hook raises."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = planned(model, optimizer)
    start = weights(training)

    def raising(*_):
        raise error

    hook = optimizer.register_step_post_hook(raising)
    with pytest.raises(error):
        training.step()
    hook.remove()
    assert not torch.equal(weights(training), start)
    assert training.steps == 1
    assert training.epsilon() == after_one_step() > 0
    assert all(p.grad is None for p in model.parameters())
    training.step()  # the next one, with noise of its own
    assert training.steps == 2


def after_one_step():
    training = planned(seed=99)
    training.step()
    return training.epsilon()


@pytest.mark.parametrize(
    "name", ["noise_multiplier", "sample_rate", "planned_steps", "steps", "clip_norm", "delta"]
)
def test_what_epsilon_is_stated_from_cannot_be_set(name):
    training = planned()
    with pytest.raises(AttributeError):
        setattr(training, name, getattr(training, name) * 2)


def test_copies_would_share_noise_and_are_refused():
    training = planned(seed=None)
    for copying in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(InputError, match="noise keys may not be in two places"):
            copying(training)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_training_is_refused(monkeypatch):
    """As a child would see it: another process than the one that planned (not forked here, since
    a process with threads may not be)."""
    private, public = planned(seed=None), planned(seed=7)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(InputError, match="fork"):
        private.step()
    assert private.steps == 0
    public.step()  # a known seed hides nothing, and repeats


def test_freezing_a_parameter_on_the_way_is_refused_in_one_line():
    training = planned()
    training.step()
    training.model[0].bias.requires_grad_(False)
    with pytest.raises(InputError, match="other parameters with gradients"):
        training.step()
    training.model[0].bias.requires_grad_(True)
    training.step()
    assert training.steps == 2
