"""``fix``: what it replaces, what it keeps, and that what it gives can be trained privately."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import TensorDataset

from repro.errors import InputError
from repro.privacy import fix
from tests.privacy.models import refused, small_training


def network(shared=True):
    torch.manual_seed(0)
    first = nn.BatchNorm2d(12)
    second = first if shared else nn.BatchNorm2d(12)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 12, 3), first, nn.ReLU()),
        nn.Sequential(
            nn.Conv2d(12, 12, 3), second, nn.InstanceNorm2d(12, track_running_stats=True)
        ),
        nn.Conv2d(12, 64, 3),
        nn.BatchNorm2d(64, eps=1e-3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(64, affine=False),
        nn.Linear(64, 2),
    )


def test_it_says_what_it_did_on_a_copy():
    model = network()
    before = copy.deepcopy(model.state_dict())
    model[0][1].weight.data.mul_(3)
    model[0][1].bias.requires_grad_(False)
    model[3].eval()
    fixed, lines = fix(model)
    assert lines == (
        "0.1: BatchNorm2d(12) -> GroupNorm(6, 12)",
        "1.2: InstanceNorm2d -> without running statistics",
        "3: BatchNorm2d(64) -> GroupNorm(32, 64)",
        "6: BatchNorm1d(64) -> GroupNorm(1, 64)",
    )
    assert fixed[0][1] is fixed[1][1], "still one layer under two names"
    assert torch.equal(fixed[0][1].weight, torch.full((12,), 3.0))
    assert not fixed[0][1].bias.requires_grad
    assert (fixed[3].eps, fixed[3].training, fixed[6].weight) == (1e-3, False, None)
    mine = {id(p) for p in model.parameters()}
    assert not any(id(p) in mine for p in fixed.parameters())
    assert isinstance(model[0][1], nn.BatchNorm2d)  # the model itself is as it was
    assert model.state_dict().keys() == before.keys()
    assert fix(fixed)[1] == ()


def test_records_do_not_mix_any_more_and_it_trains_privately():
    """By hand: one record's output is the same alone; and GroupNorm is what its formula says."""
    model, records = network(shared=False), torch.randn(8, 3, 9, 9)
    fixed, _ = fix(model)
    together = fixed(records)
    torch.testing.assert_close(together[2:3], fixed(records[2:3]), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(model(records)[2], model(records[2:4])[0], atol=1e-2)
    maps = torch.randn(5, 64, 4, 4)
    groups = maps.view(5, 32, -1)
    deviation = (groups.var(2, unbiased=False, keepdim=True) + 1e-3).sqrt()
    by_hand = ((groups - groups.mean(2, keepdim=True)) / deviation).view_as(maps)
    torch.testing.assert_close(fixed[3](maps), by_hand)
    data = TensorDataset(records, torch.arange(8) % 2)
    small_training(fixed, data, batch_size=4, engine="vmap").step()


def test_a_model_that_is_one_layer_and_other_types():
    fixed, lines = fix(nn.BatchNorm3d(4, dtype=torch.float64).eval())
    assert isinstance(fixed, nn.GroupNorm)
    assert (fixed.num_groups, fixed.weight.dtype, fixed.training) == (2, torch.float64, False)
    assert lines == ("(the model itself): BatchNorm3d(4) -> GroupNorm(2, 4)",)
    assert fix(nn.BatchNorm2d(1))[0].num_groups == 1
    assert fix(nn.BatchNorm2d(7))[0].num_groups == 1  # a prime number of channels
    assert fix(nn.SyncBatchNorm(96))[0].num_groups == 32


class Own(nn.BatchNorm2d):
    pass


def hooked():
    layer = nn.BatchNorm2d(4)
    layer.register_forward_hook(lambda module, args, output: output)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        Own(4),
        nn.LazyBatchNorm2d(),
        hooked(),
        parametrizations.weight_norm(nn.BatchNorm2d(4)),
        nn.BatchNorm1d(1),
    ],
)
def test_what_cannot_be_replaced_is_named(layer):
    model = nn.Sequential(nn.Identity(), layer)
    with refused("layer 1: got"):
        fix(model)
    assert model[1] is layer


def test_a_model_that_cannot_be_copied_is_refused():
    with pytest.raises(InputError, match=r"model: got .*deepcopy"):
        fix(nn.Sequential(nn.LazyLinear(3), nn.LazyInstanceNorm1d(track_running_stats=True)))
