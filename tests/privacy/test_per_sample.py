"""The reference per-sample gradients against float64 loops, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.models import DPResNet
from repro.privacy import per_sample_gradients
from tests.privacy.models import Bare, Conv, Tokens, Twice, cross_entropy, looped_gradients


def flat(gradients):
    return torch.cat([g.reshape(len(g), -1) for g in gradients.values()], dim=1)


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 64])
@pytest.mark.parametrize("build", [Conv, Twice, Bare, Tokens])
def test_loops_agree_at_any_chunk_size(build, chunk_size):
    torch.manual_seed(0)
    model = (Tokens(padding_idx=0) if build is Tokens else build()).double()
    shape = {Conv: (5, 4, 6, 6), Twice: (5, 3, 4, 4), Bare: (5, 3), Tokens: (5, 7)}[build]
    x, y = torch.randn(shape, dtype=torch.float64), torch.randint(0, 3, (5,))
    x = torch.randint(0, 11, shape) if build is Tokens else x
    gradients = per_sample_gradients(model, cross_entropy, x, y, chunk_size=chunk_size)
    assert list(gradients) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        assert gradients[name].shape == (5, *parameter.shape)
    torch.testing.assert_close(flat(gradients), looped_gradients(model, cross_entropy, x, y))


def test_dpresnet_in_float32():
    torch.manual_seed(0)
    model = DPResNet(width=8)
    x, y = torch.randn(3, 3, 28, 28), torch.randint(0, 8, (3,))
    found = flat(per_sample_gradients(model, cross_entropy, x, y)).double()
    expected = looped_gradients(model, cross_entropy, x, y)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_views_are_averaged_before_anything_else():
    torch.manual_seed(0)
    model = Conv().double()
    x, y = torch.randn(4, 3, 4, 6, 6, dtype=torch.float64), torch.randint(0, 3, (4,))
    found = flat(per_sample_gradients(model, cross_entropy, x, y, views=3))
    torch.testing.assert_close(found, looped_gradients(model, cross_entropy, x, y, views=3))


def test_empty_batch():
    model = Conv()
    gradients = per_sample_gradients(
        model, cross_entropy, torch.zeros(0, 4, 6, 6), torch.zeros(0, dtype=torch.int64)
    )
    assert {name: g.shape for name, g in gradients.items()} == {
        name: (0, *p.shape) for name, p in model.named_parameters()
    }


def test_frozen_parameters_are_left_out_and_nothing_in_the_model_changes():
    model = Conv()
    model.conv.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = per_sample_gradients(
        model, cross_entropy, torch.randn(2, 4, 6, 6), torch.zeros(2, dtype=torch.int64)
    )
    assert "conv.weight" not in gradients
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_dropout_masks_differ_between_records():
    """Eight equal records through dropout 0.5 on 64 units: equal masks have chance 2⁻⁶⁴."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    gradients = per_sample_gradients(
        model, cross_entropy, torch.ones(8, 4), torch.zeros(8, dtype=torch.int64)
    )
    rows = gradients["0.weight"].flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 8


class CountsCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


class IgnoresOne(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.extra = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x)


X, Y = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "layer 1: .*BatchNorm1d.*GroupNorm"),
        (nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True), nn.Linear(3, 3)), "layer 0"),
        (CountsCalls(), "writes to its buffer 'calls'"),
        (IgnoresOne(), "parameter extra.weight: got 'no gradient'"),
        (nn.ReLU(), "at least one parameter"),
    ],
)
@pytest.mark.parametrize("batch", [4, 1])
def test_models_without_per_sample_gradients_are_refused_by_name(model, message, batch):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        per_sample_gradients(model, cross_entropy, X[:batch], Y[:batch])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "loss_fn",
    [
        F.cross_entropy,  # a mean over the batch
        lambda outputs, targets: outputs,
        lambda outputs, targets: 0.0,
        lambda outputs, targets: cross_entropy(outputs, targets)[:, None],
    ],
)
@pytest.mark.parametrize("batch", [4, 1])
def test_losses_that_are_not_per_record_are_refused(loss_fn, batch):
    with pytest.raises(InputError, match=r"loss_fn: got .*one loss per record"):
        per_sample_gradients(nn.Linear(3, 3), loss_fn, X[:batch], Y[:batch])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": Y[:2]}, "targets: got '2 records'; expected 4"),
        ({"inputs": torch.tensor(1.0)}, "leading dimension"),
        ({"chunk_size": 0}, "chunk_size: got 0"),
        ({"views": 2}, "views"),
        ({"inputs": X.to("meta")}, "device"),
    ],
)
def test_bad_batches_are_one_line(changes, message):
    call = {"inputs": X, "targets": Y, **changes}
    with pytest.raises(InputError, match=message):
        per_sample_gradients(nn.Linear(3, 3), cross_entropy, **call)
