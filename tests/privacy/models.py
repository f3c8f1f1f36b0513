"""Small models, usual calls with them, and an independent oracle: float64 loops over records."""

from __future__ import annotations

import contextlib
import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.errors import InputError
from repro.privacy import clipped_noisy_sum, make_private
from repro.randomness import RootSeed

PLACE = {"seed": RootSeed.from_user(0), "party": 0, "round": 0}


def cross_entropy(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def squared_error(outputs, targets):
    return (outputs - targets).square().flatten(1).sum(dim=1)


def noiseless(model, x, y, clip_norm=1.0, loss_fn=cross_entropy, **more):
    """Σ clip(g_i), by the one private path."""
    usual = {"clip_norm": clip_norm, "noise_multiplier": 0.0, "seed": 0, "step": 0}
    return clipped_noisy_sum(model, loss_fn, x, y, **usual | more)


def small_training(model, records, optimizer=None, **options):
    """``make_private`` for an epoch by SGD at σ = 1, but for what is said."""
    trained = [p for p in model.parameters() if p.requires_grad]
    usual = {"loss_fn": cross_entropy, "noise_multiplier": 1.0, "target_delta": 1e-3, "epochs": 1}
    usual |= {"clip_norm": 1.0, "batch_size": 10, "seed": 3} | options
    return make_private(model, optimizer or torch.optim.SGD(trained, lr=0.1), records, **usual)


@contextlib.contextmanager
def refused(said, field=None):
    """InputError in one line that says so, of this field."""
    with pytest.raises(InputError) as problem:
        yield
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)
    assert field in (None, problem.value.field)


def take(count, *runs):
    """That many steps of each, by turns."""
    for _ in range(count):
        for run in runs:
            run.step()


def finish(training):
    while not training.finished:
        training.step()


def flat(model):
    """All parameters, (P,)."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def through_a_file(state):
    """As a resumed run finds it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def looped_gradients(model, loss_fn, inputs, targets, views=1):
    """Flat (B, P) float64 gradients by ``backward`` on one record at a time."""
    model = copy.deepcopy(model).double()
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        model.zero_grad()
        x = x if views > 1 else x.unsqueeze(0)
        x = x.double() if x.is_floating_point() else x
        y = y.double() if y.is_floating_point() else y
        loss_fn(model(x), y.unsqueeze(0).expand(views, *y.shape)).mean().backward()
        grads = [p.grad for p in model.parameters() if p.requires_grad]
        rows.append(torch.cat([(g.to_dense() if g.is_sparse else g).flatten() for g in grads]))
    return torch.stack(rows)


def clipped(rows, clip_norm):
    """Σ_i g_i · min(1, C / ‖g_i‖), written out."""
    return sum(row * min(1.0, clip_norm / float(row.norm())) for row in rows)


class Conv(nn.Module):
    """One convolution of any shape, GroupNorm, and a linear head."""

    def __init__(self, dims=2, inputs=4, outputs=6, groups=1, bias=True, kernel_size=3, **conv):
        super().__init__()
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.conv = kind(inputs, outputs, kernel_size, groups=groups, bias=bias, **conv)
        self.norm = nn.GroupNorm(2, outputs)
        self.head = nn.Linear(outputs, 3)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).square().flatten(2).mean(2))


class Tokens(nn.Module):
    """Embedding, LayerNorm and Linear on sequences."""

    def __init__(self, padding_idx=None):
        super().__init__()
        self.embed = nn.Embedding(11, 6, padding_idx=padding_idx)
        self.norm = nn.LayerNorm(6)
        self.hidden = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3, bias=False)

    def forward(self, ids):
        return self.head(self.hidden(self.norm(self.embed(ids))).tanh().mean(1))


class Twice(nn.Module):
    """A layer called twice, and two layers sharing one weight."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        x = self.conv(self.conv(x).tanh()).mean((2, 3))
        return self.second(self.first(x).tanh())


class InPlace(nn.Module):
    """In-place activations right behind the layers, the first included."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Stray(nn.Module):
    """Uses a layer's weight behind the layer's back."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return F.linear(self.layer(x), self.layer.weight)


class Bare(nn.Module):
    """Parameters that belong to no known layer, one of them a scalar."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.shift = nn.Parameter(torch.tensor(0.5))
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x * self.scale + self.shift)
